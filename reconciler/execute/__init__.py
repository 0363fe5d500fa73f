"""Walks a plan: in parallel along its edges, retried by error class, each intent recorded before its effect."""
