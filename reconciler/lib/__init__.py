"""What would make sense in another project. Imports nothing of banger's."""
