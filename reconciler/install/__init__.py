"""Putting banger in its place on a host: units, the root helper, the system user; and taking it away again.

`archive` makes the helper's one file, `layout` says which file goes where, `record` remembers what was installed,
`installer` makes the difference, `host` is what it asks of systemd. docs/install.md is the reference.
"""
