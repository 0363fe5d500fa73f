"""The root side: bridges and taps for one user at a time. Standard library and itself only.

`protocol` says what can be asked, `names` what things are called, `policy` what is allowed, `shape` which commands
lead from what exists to what is wanted, `ops` runs them, `server` carries the requests, `client` is for the other
side. docs/helper-protocol.md is the reference.
"""
