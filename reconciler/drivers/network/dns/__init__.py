"""The name server of the VMs: it answers for them, and asks the host's own servers about the rest.

    sockets ──server──▶ message (wire format) ──answering──▶ zone            names of VMs, answered at once
                                                    └──────▶ forwarding ──▶ everything else, through `upstreams`
                                                                 └──▶ granting   what an egress rule names, first allowed

One thread does all of it (`loop`), and nothing in it waits: what may take time is somebody else's descriptor, or
`granting`'s worker. Only a controller imports this package; it never changes the host by itself.
"""
