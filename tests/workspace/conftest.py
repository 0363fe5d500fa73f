"""What the tests of workspaces share."""

from tests.workspace.places import pair

__all__ = ["pair"]
