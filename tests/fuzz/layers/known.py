"""The disagreements that docs/layers.md tells of ("Other readers"), each recognised by what causes it."""

from __future__ import annotations

import re
from typing import Any

from tests.fuzz.layers.compare import Ours

_SETUID = 0o6000


def reason(program: str, mine: Ours, other: dict[str, Any], lines: list[str]) -> str | None:
    """Why another reader's tree is not ours, or None if nobody knows."""
    assert mine.tree is not None
    said = str(other["said"])
    if _all(lines, r"(time of|it fails: .*invalid mtime=)") and "its time is none" in "".join(mine.warnings):
        return "times that squashfs does not have"
    if "Cannot restore extended attributes" in said and _all(lines, "it fails"):
        return "its sandbox has no attributes"
    if program == "bsdtar" and all(_setuid_only(line) for line in lines):
        return "its sandbox has no setuid bits"
    if mine.named - mine.tree.nodes.keys() - {""}:
        return "a symbolic link on the way to an entry"
    if program == "gnutar" and "Permission denied" in said:
        return "its sandbox has no right to pass closed folders"
    if program == "gnutar" and mine.warnings and any(node.type == "symlink" for node in mine.tree.nodes.values()):
        return "a name that stands twice, once as a link that GNU tar makes at its end"
    if program == "bsdtar" and "Unrecognized archive format" in said and not other["tree"]:
        return "libarchive does not take it for a tar"
    if re.search(r"Cannot (mkdir|open|create).*: Permission denied", said) and _all(lines, "(it fails|only here)"):
        return "its sandbox may not write to a folder without write permission"
    if re.search(r"Cannot mknod|Can't create '.*': Operation not permitted", said) and _all(lines, "it fails"):
        return "its sandbox has no devices"
    if "can't be converted" in said or "cannot be converted" in said:
        return "a name that is no text"
    return None


def _all(lines: list[str], pattern: str) -> bool:
    return all(re.match(pattern, line, re.DOTALL) for line in lines)


def _setuid_only(line: str) -> bool:
    match = re.fullmatch(r"mode of .*: ([0-7]+), ([0-7]+)", line, re.DOTALL)
    return match is not None and (int(match[1], 8) ^ int(match[2], 8)) & ~_SETUID == 0
