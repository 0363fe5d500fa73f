"""The indexes that a file's `catalog: NAME/ENTRY` refers to: the built-in one, files, and what is kept of fetched ones.

An entry is a part of another document with the keys of `images` and `kernels`, so that the same readers read it. Nothing
is fetched here: an index means tomorrow what it means today, until somebody asks for a newer one. What the lock file
says of an entry goes before what its index says.
"""

from __future__ import annotations

import json
from pathlib import Path as HostPath
from typing import Any

from reconciler.model.artifacts import Kernel
from reconciler.model.catalog import BUILT_IN, CatalogSource
from reconciler.spec import load, validate
from reconciler.spec.blobs import check_url
from reconciler.spec.defaults import Given, look_up, names_of
from reconciler.spec.lock import NAME, SECTIONS, Locked
from reconciler.spec.problems import Path, Problem, SpecError, did_you_mean, quote
from reconciler.spec.source import read
from reconciler.spec.tree import Document, ListNode, MapNode, Node, children, plain

SCHEMA = "catalog"
_OF_THE_HOST = ("file", "path", "authFile", "certDir", "policy")
_HEAD = {"apiVersion": "banger/v1", "kind": "catalog"}
_BUILT_IN_FILE = HostPath(__file__).with_name("catalog.yaml")


class Catalogs:
    """What one document can refer to. Each index is read when the first of its entries is asked for.

    Parameters
    ----------
    locked: what a lock file says.
    kept: the folder that has fetched indexes (`key_file`).
    """

    def __init__(self, document: Document, locked: Locked, kept: HostPath) -> None:
        self._document = document
        self._locked = locked
        self._kept = kept
        self._indexes: dict[tuple[str, bool], Document | None] = {}
        self.sources = _sources(document)
        self.kernels: dict[str, Kernel] = {}
        """Those that images bring from a catalog, named like them."""
        self.used: dict[str, dict[str, Any]] = {}
        """What was asked for, in the form of `locked`."""

    def entry(self, section: str, asked: Given) -> tuple[Document, Path] | None:
        """The document and the place of an entry; None after reporting what is wrong."""
        if not asked.usable:
            return None
        before, _, name = str(asked.value).rpartition("/")
        catalog = before or BUILT_IN
        if catalog != BUILT_IN and catalog not in self.sources:
            if catalog not in names_of(self._document, "catalogs"):
                hint = did_you_mean(catalog, self.sources) or "declare it under `catalogs`"
                self._document.report(asked.path, f"there is no catalog {quote(catalog)}", hint)
            return None
        index = self.locked_or_not(catalog, section, name) or self._index(catalog, locked=False)
        if index is None:
            return None
        if name not in (known := names_of(index, section)):
            what = f"catalog {catalog} has no {section.removesuffix('s')} {quote(name)}"
            self._document.report(asked.path, what, did_you_mean(name, known) or "`banger image catalog` lists them")
            return None
        self.use(catalog, index, section, name)
        return index, (section, name)

    def use(self, catalog: str, index: Document, section: str, name: str) -> None:
        """Notes that an entry is meant."""
        node = index.find((section, name))
        assert node is not None
        self.used.setdefault(catalog, dict(_HEAD)).setdefault(section, {})[name] = plain(node)

    def catalog_of(self, index: Document) -> str:
        """The name of the catalog that an index came from."""
        return next(name for (name, _), known in self._indexes.items() if known is index)

    def index(self, catalog: str) -> Document | None:
        """A catalog as it is, without regard to a lock; None after reporting what is wrong with it."""
        return self._index(catalog, locked=False)

    def locked_or_not(self, catalog: str, section: str, name: str) -> Document | None:
        """The index of what is locked, if this entry is."""
        if name not in self._locked.get(catalog, {}).get(section, {}):
            return None
        return self._index(catalog, locked=True)

    @property
    def problems(self) -> list[Problem]:
        """What was found wrong so far, of the document's and of indexes."""
        return self._document.problems

    def finish(self) -> None:
        """Adds what was found wrong with indexes to the problems of the document."""
        for index in self._indexes.values():
            if index is not None:
                self._document.problems += index.problems
                index.problems = []

    def _index(self, catalog: str, *, locked: bool) -> Document | None:
        if (catalog, locked) not in self._indexes:
            source = self.sources.get(catalog)
            try:
                self._indexes[catalog, locked] = self._read(catalog, source, locked=locked)
            except SpecError as error:
                self._document.problems += error.errors
                self._indexes[catalog, locked] = None
        return self._indexes[catalog, locked]

    def _read(self, catalog: str, source: CatalogSource | None, *, locked: bool) -> Document | None:
        fetched = bool(source and source.fetched)
        if locked:
            place = HostPath(self._document.file).parent / NAME
            index = check(json.dumps(self._locked[catalog]).encode(), str(place), fetched=fetched)
            if source and source.file:
                index.file = source.file  # which paths in it are told from
            return index
        if source is None:
            name, data = str(_BUILT_IN_FILE), _BUILT_IN_FILE.read_bytes()
        elif source.file:
            name, data = source.file, read(HostPath(source.file))
        else:
            place = key_file(self._kept, source)
            if not place.is_file():
                hint = "`banger image catalog --update` fetches it"
                self._document.report(("catalogs", catalog), "was not fetched yet", hint, key=True)
                return None
            name, data = f"{source}", read(place)
        return check(data, name, fetched=fetched)


def key_file(kept: HostPath, source: CatalogSource) -> HostPath:
    """Where a fetched index is kept."""
    return kept / f"{source.key}.yaml"


def check(data: bytes, name: str, *, fetched: bool) -> Document:
    """The tree of an index. SpecError with everything that is wrong with it.

    Parameters
    ----------
    fetched: from elsewhere, and so not to name files of this host.
    """
    index = load.parse(data, name)
    validate.check(index, SCHEMA)
    if fetched:
        for section in SECTIONS:
            for entry in names_of(index, section):
                for path in _host_files(index.find((section, entry)), (section, entry)):
                    index.report(path, "a catalog from elsewhere names no files of this host", key=True)
    for image in names_of(index, "images"):
        kernel = look_up(index, ("images", image, "kernel"))
        if kernel.usable and kernel.value not in (*names_of(index, "kernels"), "from-image"):
            index.report(kernel.path, f"there is no kernel {quote(kernel.value)} in this catalog")
    if index.problems:
        raise SpecError(index.problems)
    return index


def _host_files(node: Node | None, path: Path) -> list[Path]:
    """Where an entry names a file of the host; its depth is bounded by the schema."""
    found: list[Path] = []
    if isinstance(node, MapNode):
        for key, member in node.members.items():
            found += [(*path, key)] if key in _OF_THE_HOST else _host_files(member.value, (*path, key))
    elif isinstance(node, ListNode):
        for number, item in enumerate(children(node)):
            found += _host_files(item, (*path, number))
    return found


def _sources(document: Document) -> dict[str, CatalogSource]:
    """`catalogs` of a document, less those that were or are reported."""
    found = {}
    for name in names_of(document, "catalogs"):
        path: Path = ("catalogs", name)
        if name == BUILT_IN:
            document.report(path, f"{name!r} is built in", "give the catalog another name", key=True)
            continue
        given = {key: look_up(document, (*path, key)) for key in ("file", "url", "git", "ref", "path", "signers")}
        wrong = False
        for key, owner in (("ref", "git"), ("path", "git"), ("signers", "file")):
            if given[key].usable and given[owner].usable == (key == "signers"):
                hint = "a file of this host needs none" if key == "signers" else "it goes with 'git'"
                document.report((*path, key), "means nothing here", hint, key=True)
                wrong = True
        place = next((given[key] for key in ("file", "url", "git") if given[key].usable), None)
        if wrong or place is None or document.is_bad(path) or any(document.is_bad(g.path) for g in given.values()):
            continue
        if given["url"].usable and not check_url(document, given["url"]):
            continue
        signers = given["signers"].value or ()
        bad = any(document.is_bad((*path, "signers", number)) for number in range(len(signers)))
        if not given["file"].usable and (bad or not signers):
            continue
        file = str(HostPath(document.file).absolute().parent / given["file"].value) if given["file"].usable else ""
        found[name] = CatalogSource(
            name=name,
            file=file,
            url=given["url"].value or "",
            git=given["git"].value or "",
            ref=given["ref"].value or "",
            path=(given["path"].value or "catalog.yaml") if given["git"].usable else "",
            signers=tuple(signers),
        )
    return found
