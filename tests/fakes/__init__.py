"""Stand-ins at the boundary: what they replace is a process, a host or a service, never our own middle."""
