"""The root side: bridges, taps and their rules, for one user at a time. Standard library and itself only.

`protocol` says what can be asked, `names` what things are called, `policy` what is allowed, `links` what to change on
a link and `nft` what rules say, all of it pure. `ops` carries requests out: links over `netlink`, `rules` with
`forwarding` through the programs that `run` starts, `resolving` and `watch`. `server` takes connections, `session`
the requests of one, `transport` their frames; `client` is for the other side. docs/helper-protocol.md is the reference.
"""
