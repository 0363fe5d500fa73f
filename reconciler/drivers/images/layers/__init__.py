"""Layers of a container image, read and merged by a process that may do nothing else.

`flatten` runs `child` in a sandbox; nobody else imports this package, and it imports nothing of ours but itself: what
reads hostile bytes should be short, and stand alone. No path out of a layer is ever given to a file system here. The
flow is `blobs` (bytes, verified) → `records` (entries of a tar) → `merge` (which entry wins, in a `tree`) → `emit`
(a second reading that writes the winners as one tar).
"""
