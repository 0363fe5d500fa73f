"""Root file systems for guests."""
