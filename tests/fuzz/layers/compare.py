"""Where three readers of one archive disagree, and which of that docs/layers.md tells."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.drivers.images.layers.blobs import Blob, Budget, Encoding
from reconciler.drivers.images.layers.emit import Output, emit
from reconciler.drivers.images.layers.merge import merge
from reconciler.drivers.images.layers.records import Reader, Stream
from reconciler.drivers.images.layers.refusal import RefusedError
from tests.drivers.images import archives, trees


@dataclass(frozen=True)
class Ours:
    """What the layers' reader makes of an archive: a tree, or why it is refused."""

    tree: trees.Tree | None
    refused: str = ""
    named: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def ours(data: bytes, path: Path) -> Ours:
    path.write_bytes(data)
    blob = Blob(path, Encoding.PLAIN, archives.digest(data), len(data), None)
    warnings: list[str] = []
    try:
        merged = merge([blob], Budget(64 << 20), 10_000, warnings.append)
        with tempfile.TemporaryFile() as file:
            emit(merged, [blob], Output(file.fileno()), lambda _: None)
            file.seek(0)
            tree = trees.of_tar(file.read())
    except RefusedError as problem:
        return Ours(None, str(problem))
    named = frozenset(entry.path.decode("latin-1") for entry in Reader(Stream(iter([data]))))
    return Ours(tree, "", named, tuple(warnings))


def differences(mine: Ours, other: dict[str, Any]) -> list[str]:
    """How another reader's tree is not ours, one line each; owners, and devices, which it may not make, left out."""
    assert mine.tree is not None
    nodes = {name: node for name, node in mine.tree.nodes.items() if name != "."}
    theirs = other["tree"]
    found = []
    for name in sorted(nodes.keys() | theirs.keys()):
        node, that = nodes.get(name), theirs.get(name)
        if node is None:
            found.append(f"only there: {that[0]} {name!r}")
        elif that is None:
            if node.type not in ("char", "block"):
                found.append(f"only here: {node.type} {name!r}")
        else:
            kind, mode, mtime, what, _ = that
            said = node.link if node.type == "symlink" else node.content
            if kind != node.type:
                found.append(f"type of {name!r}: {node.type}, {kind}")
            elif said != what:
                found.append(f"content of {name!r}: {said[:40]!r}, {what[:40]!r}")
            elif name in mine.named and kind != "symlink" and mode != node.mode:
                found.append(f"mode of {name!r}: {node.mode:o}, {mode:o}")
            elif name in mine.named and kind == "file" and mtime != node.mtime:
                found.append(f"time of {name!r}: {node.mtime}, {mtime}")
    if not found:
        groups: dict[int, set[str]] = {}
        for name, (kind, *_, inode) in theirs.items():
            if kind != "dir":
                groups.setdefault(inode, set()).add(name)
        links = {frozenset(group) for group in groups.values() if len(group) > 1}
        plain = {group for group in mine.tree.groups if nodes[min(group)].type not in ("char", "block")}
        if links != plain:
            found.append(f"hard links: {sorted(map(sorted, plain))}, {sorted(map(sorted, links))}")
    if other["code"] and not found:
        found.append(f"it fails: {other['said']}")
    return found
