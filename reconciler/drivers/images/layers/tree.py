"""The tree that layers make together, in about fifty bytes for each name of it.

A million objects of Python would take a gigabyte. So a node is a number, what is known of it stands in arrays, names lie
one after the other in one buffer, and a hash table of numbers finds them by their folder and name. Node 0 is the root.

A layer hides what is below it lazily. Every node remembers the layer that wrote it last, and the layer that emptied it
last (`opaque`): a node older than that of a folder above it is not there any more. So a whiteout costs the same whatever
it hides, and it does not matter where in its layer it stands (image specification, "Whiteouts").

Symbolic links on the way to an entry are followed inside of this tree alone, as in a chroot. There is no other.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.drivers.images.layers.fields import DEEPEST, LONGEST_NAME
from reconciler.drivers.images.layers.records import Kind
from reconciler.drivers.images.layers.refusal import RefusedError, shown

ROOT = 0
IMPLIED = 0
"""The number of no entry: of folders that are only on the way to something."""
MOST_LINKS = 40
"""That Linux follows in one path (path_resolution(7))."""
MOST_TEXT = 48 * 1024 * 1024
"""Bytes of all names and link targets: a million of 48 bytes."""
_MAX_CACHED = 4096


class Tree:
    """What is where after the layers so far.

    Parameters
    ----------
    most: nodes that may be made; folders that no entry names count, too.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._text = bytearray()
        self._parent = array("I", [0])
        self._start = array("I", [0])  # of its name in the text
        self._length = array("B", [0])
        self._names = Names(self._text, self._parent, self._start, self._length)
        self._kind = array("B", [Kind.DIR])
        self._layer = array("H", [0])
        self._opaque = array("H", [0])
        self._entry = array("I", [IMPLIED])
        self._target = array("I", [0])  # where in the text; two bytes of length come first
        self._slots = array("I", bytes(4 * 1024))
        self._named = array("H", [0])  # the last layer with an entry for it
        self._current = 0
        self._folders: dict[bytes, tuple[int, int]] = {}

    def begin(self) -> None:
        """The next layer, above all so far."""
        self._current += 1
        self._folders.clear()

    def put(self, parts: list[bytes], kind: Kind, entry: int, target: bytes = b"") -> bool:
        """An entry of the present layer. Returns whether it takes the place of another of the same layer.

        Raises RefusedError where it cannot stand.
        """
        if not parts:
            again = self._named[ROOT] == self._current
            self._entry[ROOT] = entry
            self._named[ROOT] = self._current
            return again
        at = 0
        if kind is Kind.SYMLINK:
            at = len(self._text)
            self._text += len(target).to_bytes(2, "big") + target
            self._bounded()
        return self._set(parts, kind, entry, at)

    def link(self, parts: list[bytes], target: list[bytes]) -> bool:
        """A hard link of the present layer to what its target is just now. Returns and raises as `put`."""
        found = self._walk(target, follow_last=False)
        if found is None:
            raise RefusedError(f"is a hard link to {shown(b'/'.join(target))}, which is not there")
        if self._kind[found] == Kind.DIR:
            raise RefusedError(f"is a hard link to {shown(b'/'.join(target))}, which is a folder")
        if found == self._walk(parts, follow_last=False):
            raise RefusedError("is a hard link to itself")
        return self._set(parts, Kind(self._kind[found]), self._entry[found], self._target[found])

    def hide(self, parts: list[bytes]) -> None:
        """A whiteout of the present layer: what lower layers have at a path is gone."""
        node = self._walk(parts, follow_links=False, follow_last=False)
        if node is None:
            return
        self._opaque[node] = self._current
        self._folders.clear()
        if self._layer[node] < self._current:
            self._kind[node] = Kind.GONE

    def empty(self, parts: list[bytes]) -> None:
        """An opaque marker of the present layer: what lower layers have in a folder is gone."""
        node = self._walk(parts, follow_links=False)
        if node is None:
            return
        if self._kind[node] != Kind.DIR:
            raise RefusedError("empties what is not a folder")
        self._opaque[node] = self._current
        self._folders.clear()

    def settle(self, entries: int) -> Settled:
        """The end: nothing is written any more, and what is there can be asked by the number of its entry."""
        self._slots = array("I")
        floor = self._opaque  # becomes the greatest on the way down; a parent's number is smaller than its children's
        first = array("I", bytes(4 * (entries + 1)))
        others = array("I", bytes(4 * len(self._parent)))
        implied = array("I")
        for node in range(1, len(self._parent)):
            parent = self._parent[node]
            if self._kind[node] == Kind.GONE or self._kind[parent] != Kind.DIR or self._layer[node] < floor[parent]:
                self._kind[node] = Kind.GONE
                continue
            floor[node] = max(floor[node], floor[parent])
            entry = self._entry[node]
            if entry == IMPLIED:
                implied.append(node)
            else:
                others[node] = first[entry]
                first[entry] = node
        return Settled(root=self._entry[ROOT], names=self._names, first=first, others=others, bare=implied)

    def _set(self, parts: list[bytes], kind: Kind, entry: int, target: int) -> bool:
        folder, floor = self._folder(parts[:-1])
        node = self._find(folder, parts[-1]) or self._make(folder, parts[-1])
        old = self._kind[node]
        again = False
        if old != Kind.GONE and self._layer[node] >= floor:
            written = self._layer[node] == self._current
            again = written and self._named[node] == self._current
            if old != kind and (again or (written and old == Kind.DIR)):
                raise RefusedError("stands twice in its layer, as two different things")
            if old == Kind.DIR and kind is not Kind.DIR:
                self._opaque[node] = self._current
        self._kind[node] = kind
        self._layer[node] = self._current
        self._named[node] = self._current
        self._entry[node] = entry
        self._target[node] = target
        return again

    def _folder(self, parts: list[bytes]) -> tuple[int, int]:
        """The folder that a path leads to, made if it is absent, and the layer before which it has nothing."""
        path = b"/".join(parts)
        if (known := self._folders.get(path)) is not None:
            return known
        trail = [(ROOT, self._opaque[ROOT])]
        left = parts[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            folder, floor = trail[-1]
            node = self._find(folder, part) or self._make(folder, part)
            kind = self._kind[node]
            if kind == Kind.GONE or self._layer[node] < floor:
                self._kind[node] = Kind.DIR
                self._entry[node] = IMPLIED
            elif kind == Kind.SYMLINK:
                links += 1
                if links > MOST_LINKS:
                    raise RefusedError(f"is behind more than {MOST_LINKS} symbolic links, or a loop of them")
                target = self._target_of(node)
                if target.startswith(b"/"):
                    del trail[1:]
                left += target.split(b"/")[::-1]
                continue
            elif kind != Kind.DIR:
                raise RefusedError(f"is below {shown(self._names.path(node))}, which is not a folder")
            self._layer[node] = self._current
            trail.append((node, max(floor, self._opaque[node])))
            if len(trail) > DEEPEST + 1:
                raise RefusedError(f"is more than {DEEPEST} folders deep")
        if links == 0 and len(self._folders) < _MAX_CACHED:
            # A link may become something else within the layer; a folder that was written to may not.
            self._folders[path] = trail[-1]
        return trail[-1]

    def _walk(self, parts: list[bytes], *, follow_links: bool = True, follow_last: bool = True) -> int | None:
        """What a path leads to, and nothing is made on the way."""
        trail = [(ROOT, self._opaque[ROOT])]
        left = parts[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            folder, floor = trail[-1]
            if self._kind[folder] != Kind.DIR:
                return None
            node = self._find(folder, part)
            if node == 0 or self._kind[node] == Kind.GONE or self._layer[node] < floor:
                return None
            if self._kind[node] == Kind.SYMLINK and (left or follow_last):
                if not follow_links:
                    raise RefusedError(f"is a whiteout behind {shown(self._names.path(node))}, a symbolic link")
                links += 1
                if links > MOST_LINKS:
                    return None
                target = self._target_of(node)
                if target.startswith(b"/"):
                    del trail[1:]
                left += target.split(b"/")[::-1]
                continue
            trail.append((node, max(floor, self._opaque[node])))
        return trail[-1][0]

    def _target_of(self, node: int) -> bytes:
        at = self._target[node]
        return bytes(self._text[at + 2 : at + 2 + int.from_bytes(self._text[at : at + 2], "big")])

    def _find(self, parent: int, name: bytes) -> int:
        """The node of that name in a folder, whatever it is; 0 if there was never one."""
        slots, mask = self._slots, len(self._slots) - 1
        length = len(name)
        # The interpreter's hash of bytes is keyed at random: nobody can aim at one slot.
        slot = hash((parent, name)) & mask
        while node := slots[slot]:
            if self._parent[node] == parent and self._length[node] == length:
                at = self._start[node]
                if self._text[at : at + length] == name:
                    return node
            slot = (slot + 1) & mask
        return 0

    def _make(self, parent: int, name: bytes) -> int:
        node = len(self._parent)
        if node > self._most:
            raise RefusedError(f"is one more than the {self._most} entries that an image may have")
        if len(name) > LONGEST_NAME:
            raise RefusedError(f"is behind a link with a component of more than {LONGEST_NAME} bytes")
        self._parent.append(parent)
        self._start.append(len(self._text))
        self._length.append(len(name))
        self._kind.append(Kind.GONE)
        self._layer.append(self._current)
        self._named.append(0)
        self._opaque.append(0)
        self._entry.append(IMPLIED)
        self._target.append(0)
        self._text += name
        self._bounded()
        if 2 * node > len(self._slots):
            self._slots = array("I", bytes(8 * len(self._slots)))
            for known in range(1, node):
                self._insert(known)
        self._insert(node)
        return node

    def _insert(self, node: int) -> None:
        slots, mask = self._slots, len(self._slots) - 1
        at = self._start[node]
        slot = hash((self._parent[node], bytes(self._text[at : at + self._length[node]]))) & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = node

    def _bounded(self) -> None:
        if len(self._text) > MOST_TEXT:
            raise RefusedError(f"brings all names of the image to more than {MOST_TEXT} bytes")


@dataclass(frozen=True, slots=True)
class Names:
    """How nodes are called, and what they are below."""

    text: bytearray
    parent: array[int]
    start: array[int]
    length: array[int]

    def path(self, node: int) -> bytes:
        """The names from the root to a node."""
        parts = []
        while node:
            at = self.start[node]
            parts.append(bytes(self.text[at : at + self.length[node]]))
            node = self.parent[node]
        return b"/".join(reversed(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A finished tree, by the numbers of its entries.

    Parameters
    ----------
    root: the number of the root's entry, or IMPLIED.
    first: a node of each entry; 0 if it is nowhere in the image.
    others: a further node of the same entry for each node, or 0.
    bare: the nodes that no entry describes.
    """

    root: int
    names: Names
    first: array[int]
    others: array[int]
    bare: array[int]

    def paths(self, entry: int) -> list[bytes]:
        """Where an entry is in the image: nowhere, at one path, or at several that are hard links to each other."""
        found = []
        node = self.first[entry]
        while node:
            found.append(self.names.path(node))
            node = self.others[node]
        return found

    def wanted(self, first: int, last: int) -> int:
        """How many of the entries with these numbers are anywhere; `last` is the one after them."""
        part = self.first[first:last]
        return len(part) - part.count(0)

    def implied(self) -> Iterator[bytes]:
        """The folders that no entry describes, from the top down."""
        return map(self.names.path, self.bare)
