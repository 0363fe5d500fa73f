"""The guest's side: what boots it, what it is told, and how the host reaches it. Knows no VMM and no network."""
