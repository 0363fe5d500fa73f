"""One technology each, mutually ignorant."""
