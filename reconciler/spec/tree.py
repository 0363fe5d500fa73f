"""A parsed file: values that remember where they stand. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.spec.problems import MAX_PROBLEMS, Path, Problem, dotted, quote
from reconciler.spec.scalars import Scalar


@dataclass(slots=True)
class Node:
    """What all nodes share: the position from 1, and bounds on what a walk over it costs.

    `weight` counts the nodes below it, aliases as often as they are used, long text as several. `height` is the
    number of levels below it. `bad` means that a problem was already reported, so that nobody reports it again.
    """

    line: int
    column: int
    weight: int = 1
    height: int = 0
    bad: bool = False


@dataclass(slots=True)
class ScalarNode(Node):
    """A word. `text` is how the file spells it, `filled` that `value` came out of `${...}`."""

    value: Scalar = None
    text: str = ""
    filled: bool = False


@dataclass(slots=True)
class ListNode(Node):
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Member:
    """One key of a mapping with its own position."""

    line: int
    column: int
    value: Node


@dataclass(slots=True)
class MapNode(Node):
    members: dict[str, Member] = field(default_factory=dict)


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below."""
    if isinstance(node, MapNode):
        yield from (member.value for member in node.members.values())
    elif isinstance(node, ListNode):
        yield from node.items


def plain(node: Node) -> Any:
    """The node as the dicts, lists and scalars that a validator reads. Depth is bounded by the parser."""
    if isinstance(node, MapNode):
        return {key: plain(member.value) for key, member in node.members.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    assert isinstance(node, ScalarNode)
    return node.value


def child(node: Node | None, part: str | int) -> Node | None:
    """What a mapping or a list has under a key or an index; None if nothing."""
    if isinstance(node, MapNode):
        member = node.members.get(str(part))
        return member.value if member is not None else None
    if isinstance(node, ListNode) and isinstance(part, int) and part < len(node.items):
        return node.items[part]
    return None


@dataclass(slots=True)
class Document:
    """One parsed file and the problems found in it so far."""

    file: str
    root: Node
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Adds a problem with the value at `path`, or with the key itself."""
        line, column = self.position(path, key=key)
        self.problems.append(Problem(self.file, line, column, dotted(path), message, hint))

    @property
    def full(self) -> bool:
        """Whether so much is wrong that nobody needs to look further."""
        return len(self.problems) >= MAX_PROBLEMS

    def find(self, path: Path) -> Node | None:
        """The node at `path`, or None."""
        *_, last = self._walk(path)
        return last

    def position(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of what stands at `path`, or of the nearest thing above it that is there."""
        node = self.root
        line, column = node.line, node.column
        for part in path:
            below: Node | None = None
            if isinstance(node, MapNode) and part in node.members:
                member = node.members[str(part)]
                below = member.value
                line, column = (member.line, member.column) if key else (below.line, below.column)
            elif isinstance(node, ListNode) and isinstance(part, int) and part < len(node.items):
                below = node.items[part]
                line, column = below.line, below.column
            if below is None:
                break
            node = below
        return line, column

    def is_bad(self, path: Path) -> bool:
        """Whether a problem with the value at `path`, or with something around it, was already reported."""
        return any(node is not None and node.bad for node in self._walk(path))

    def mark_bad(self, path: Path) -> None:
        node = self.find(path)
        if node is not None:
            node.bad = True

    def shown(self, path: Path) -> str:
        """The value at `path` for a message, as the file spells it.

        What `${...}` stands for is not shown: it may come from the environment of a process, which may hold secrets.
        """
        node = self.find(path)
        if isinstance(node, ScalarNode):
            if node.filled:
                return f"{quote(node.text)} (filled in)"
            return quote(node.text if isinstance(node.value, (str, float)) else node.value)
        return "a list" if isinstance(node, ListNode) else "a mapping"

    def _walk(self, path: Path) -> Iterator[Node | None]:
        node: Node | None = self.root
        yield node
        for part in path:
            node = child(node, part)
            yield node
