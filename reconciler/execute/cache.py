"""The cache: what a killed process left is removed."""

from __future__ import annotations

from pathlib import Path

from reconciler.execute.tools import Tools
from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.errors import BangerError
from reconciler.lib.once import remove_tree
from reconciler.lib.progress import Progress
from reconciler.model.actions import SweepStaging


def sweep(action: SweepStaging, tools: Tools, progress: Progress) -> None:
    """Removes one staging folder, if it still is nobody's. Anything that is not a staging folder is refused."""
    folder = Path(action.name)
    parent = folder.parent.parent
    ours = any(folder.is_relative_to(root) for root in (tools.paths.state, tools.paths.cache))
    if folder.parent.name != STAGING or not ours:
        raise BangerError(f"{folder} is not a staging folder of this state directory")
    if folder in corpses(parent):
        remove_tree(folder)
        try:
            folder.parent.rmdir()
        except OSError:
            pass  # others work there
