"""The first reading: every layer from the bottom up, verified, and what each entry does to the tree.

What the image specification says of layers ("Image Layer Filesystem Changeset"): a layer adds, replaces, or removes by a
whiteout; whiteouts hide what lower layers have, never what stands in their own. Where it is silent, and readers differ,
the image is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.drivers.images.layers import fields
from reconciler.drivers.images.layers.blobs import Blob, Budget
from reconciler.drivers.images.layers.records import Entry, Kind, Reader, Stream
from reconciler.drivers.images.layers.refusal import RefusedError, shown
from reconciler.drivers.images.layers.tree import Settled, Tree

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Merged:
    """What all layers make together.

    Parameters
    ----------
    begins: the number of the first entry of each layer, and at the end the first that no layer has.
    newest: the latest time of all entries, in seconds since 1970.
    """

    tree: Settled
    begins: list[int]
    newest: int


def merge(blobs: Sequence[Blob], budget: Budget, most_entries: int, warn: Callable[[str], None]) -> Merged:
    """Reads all layers to their ends.

    Raises RefusedError, which names layer and entry.
    """
    tree = Tree(most_entries)
    number = 1
    newest = 0
    begins = [number]
    for index, blob in enumerate(blobs, 1):
        where = f"layer {index} of {len(blobs)}"
        tree.begin()
        try:
            for entry in Reader(Stream(blob.verified(budget))):
                if number > most_entries:
                    raise RefusedError(
                        f"entry {shown(entry.path)}: is one more than the {most_entries} entries that an image may have"
                    )
                budget.take(entry.size - entry.stored)
                for doubt in _take(tree, entry, number):
                    warn(f"{where} entry {shown(entry.path)}: {doubt}")
                newest = max(newest, entry.mtime)
                number += 1
        except RefusedError as problem:
            raise RefusedError(f"{where} {problem}") from None
        begins.append(number)
    return Merged(tree.settle(number), begins, newest)


def _take(tree: Tree, entry: Entry, number: int) -> list[str]:
    """Puts one entry into the tree, and says what is odd about it."""
    try:
        again = _apply(tree, entry, number)
    except RefusedError as problem:
        raise RefusedError(f"entry {shown(entry.path)}: {problem}") from None
    return [*entry.doubts, "stands twice in its layer; the last one counts"] if again else entry.doubts


def _apply(tree: Tree, entry: Entry, number: int) -> bool:
    for part in entry.parts:
        if part.startswith(WHITEOUT):
            _whiteout(tree, entry)
            return False
    if entry.kind is Kind.HARDLINK:
        return tree.link(entry.parts, fields.components(entry.link, "target of a hard link"))
    return tree.put(entry.parts, entry.kind, number, entry.link)


def _whiteout(tree: Tree, entry: Entry) -> None:
    *folder, name = entry.parts
    if entry.kind is not Kind.FILE or entry.size or any(part.startswith(WHITEOUT) for part in folder):
        raise RefusedError("a name that begins with '.wh.' is for whiteouts, which are empty files")
    if name == OPAQUE:
        tree.empty(folder)
        return
    hidden = name[len(WHITEOUT) :]
    if hidden in (b"", b".", b"..") or hidden.startswith(WHITEOUT):
        raise RefusedError("is a whiteout of nothing that can be")
    tree.hide([*folder, hidden])
