"""The cache and the trash: what lies in them, and how entries go."""
