"""What holds where a VM says nothing: the file's `defaults`, then the defaults that the schema publishes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from reconciler.spec import published
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document, MapNode, Node, ScalarNode, child, plain


class Origin(Enum):
    """Where a value was found."""

    FILE = auto()
    SCHEMA = auto()
    NOWHERE = auto()
    BAD = auto()
    """It stands in the file, and what is wrong with it was already reported."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value and the place to name when it is wrong."""

    path: Path
    origin: Origin
    value: Any = None

    @property
    def usable(self) -> bool:
        return self.origin in (Origin.FILE, Origin.SCHEMA)

    @property
    def written(self) -> bool:
        """Whether the file says it, rightly or wrongly."""
        return self.origin in (Origin.FILE, Origin.BAD)


def look_up(document: Document, *places: Path, default: Any = None) -> Given:
    """The value at the first of `places` that is there, else `default` if that is not None."""
    for path in places:
        node: Node | None = document.root
        bad = node.bad if node is not None else False
        for part in path:
            node = child(node, part)
            bad = bad or (node is not None and node.bad)
        if bad:
            return Given(path, Origin.BAD)
        if node is not None:
            return Given(path, Origin.FILE, node.value if isinstance(node, ScalarNode) else plain(node))
    return Given(places[0], Origin.NOWHERE if default is None else Origin.SCHEMA, default)


def names_of(document: Document, section: str) -> list[str]:
    """The names that a section of the file declares, rightly or wrongly."""
    node = document.find((section,))
    return list(node.members) if isinstance(node, MapNode) else []


@dataclass(frozen=True, slots=True)
class VmFields:
    """The fields of one VM of the file, each from where it is said."""

    document: Document
    path: Path

    def get(self, key: str) -> Given:
        """A field of the VM itself."""
        return look_up(self.document, (*self.path, key), ("defaults", key), default=published.defaults("vm").get(key))

    def ready(self, key: str) -> Given:
        """A field below `ready`: each is inherited by itself."""
        default = published.defaults("ready").get(key)
        return look_up(self.document, (*self.path, "ready", key), ("defaults", "ready", key), default=default)

    def volume(self, name: str, key: str) -> Given:
        """A field of a volume: each is inherited by itself."""
        return look_up(self.document, (*self.path, "volumes", name, key), ("defaults", "volumes", name, key))

    def volumes(self) -> list[str]:
        """The names of the VM's volumes: its own and those of `defaults`, sorted."""
        names: set[str] = set()
        for path in ((*self.path, "volumes"), ("defaults", "volumes")):
            node = self.document.find(path)
            if isinstance(node, MapNode) and not self.document.is_bad(path):
                names.update(name for name in node.members if not self.document.is_bad((*path, name)))
        return sorted(names)
