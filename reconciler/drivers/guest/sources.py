"""Reads what stands on the host for guests' files: one file, or a folder with all that is in it. Never writes.

Links in a folder are taken as links, so that nothing from outside of the folder goes along. What is neither file,
folder nor link is refused. Everything is bounded, and a file is opened so that a pipe put in its place delays nobody.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from reconciler.lib.errors import BangerError
from reconciler.lib.units import MIB, format_size
from reconciler.model.inside import GuestFile, files_fact, reserved

MAX_BYTES = 64 * MIB
MAX_ENTRIES = 10_000
_MAX_DEPTH = 32
_CONTENT_MODE = 0o644

_Signature = tuple[tuple[str, int, int, int, int, int], ...]
_known: dict[str, tuple[_Signature, str]] = {}
"""Digests of what was read before, for as long as nothing in it has changed by its sizes and times."""


class Kind(StrEnum):
    """What an entry is in the guest."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing at an absolute path of a guest. `data` is a file's content or a link's target."""

    path: str
    kind: Kind
    mode: int
    owner: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a guest is to have. `fact` is what `model.inside.files_fact` says of exactly this content."""

    entries: tuple[Entry, ...]
    fact: str


def digest(host: str) -> str:
    """What the content of a file or folder of the host comes to. Raises BangerError if it cannot be taken."""
    with _readable(host):
        signature = tuple(
            (path, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
            for path, info in _walk(host)
        )
    known = _known.get(host)
    if known is None or known[0] != signature:
        _known[host] = known = (signature, _digest(_read(host)))
    return known[1]


def program(host: str) -> tuple[bytes, str]:
    """The content of one file of the host, and what `digest` says of it. Raises BangerError if it is none."""
    entries = _read(host)
    if [entry.kind for entry in entries] != [Kind.FILE]:
        raise BangerError(f"{host} is not a file")
    return entries[0].data, _digest(entries)


def gather(files: Iterable[GuestFile]) -> Gathered:
    """Reads all files of a VM, each once. Raises BangerError if one cannot be read, or they are too much together."""
    files = tuple(files)
    read: dict[str, tuple[Entry, ...]] = {}
    found: dict[str, Entry] = {}
    for file in files:
        if file.link is not None:
            data = file.link.encode()
            found[file.guest] = Entry(path=file.guest, kind=Kind.LINK, mode=0o777, owner=file.owner, data=data)
            continue
        if file.host is None:
            mode = _CONTENT_MODE if file.mode is None else file.mode
            data = (file.content or "").encode()
            found[file.guest] = Entry(path=file.guest, kind=Kind.FILE, mode=mode, owner=file.owner, data=data)
            continue
        if file.host not in read:
            read[file.host] = _read(file.host)
        for entry in read[file.host]:
            path = file.guest.rstrip("/") + entry.path
            mode = file.mode if file.mode is not None and entry.kind is Kind.FILE else entry.mode
            if path:
                found[path] = Entry(path=path, kind=entry.kind, mode=mode, owner=file.owner, data=entry.data)
    _check(found)
    digests = {host: _digest(entries) for host, entries in read.items()}
    return Gathered(tuple(found.values()), files_fact(files, digests))


def _check(found: Mapping[str, Entry]) -> None:
    size = sum(len(entry.data) for entry in found.values())
    if size > MAX_BYTES or len(found) > MAX_ENTRIES:
        raise _too_much(f"the files of a guest are {len(found)} of {size} bytes")
    for path in found:
        if reserved(path):
            raise BangerError(f"the guest's {path} belongs to its system", hint="choose another place")
        for above in map(str, PurePosixPath(path).parents):
            if above in found and found[above].kind is not Kind.FOLDER:
                raise BangerError(f"the guest's {path} cannot be below {above}, which is to be a {found[above].kind}")


def _read(host: str) -> tuple[Entry, ...]:
    """The entries of a file or folder, at paths relative to it: empty for itself, else with a slash before them."""
    entries = []
    left = MAX_BYTES
    with _readable(host):
        for relative, info in _walk(host):
            mode = stat.S_IMODE(info.st_mode) & 0o777
            data = b""
            if stat.S_ISLNK(info.st_mode):
                kind, mode, data = Kind.LINK, 0o777, os.fsencode(_link(host + relative))
            elif stat.S_ISDIR(info.st_mode):
                kind = Kind.FOLDER
            else:
                kind, data = Kind.FILE, _content(host + relative, left, follow=not relative)
            left -= len(data)
            entries.append(Entry(path=relative, kind=kind, mode=mode, owner="", data=data))
    return tuple(entries)


def _walk(host: str) -> Iterator[tuple[str, os.stat_result]]:
    """A file, or a folder and all that is in it, parents first, in a fixed order."""
    top = os.stat(host)  # noqa: PTH116  # its text is kept as it stands
    todo = [("", top)]
    count = 0
    while todo:
        relative, info = todo.pop()
        count += 1
        if count > MAX_ENTRIES or relative.count("/") > _MAX_DEPTH:
            raise _too_much(f"{host} has more than {MAX_ENTRIES} entries or {_MAX_DEPTH} levels")
        if not relative.isprintable():
            raise BangerError(f"{host + relative!r} has a name that no guest is given", hint="rename it")
        if not any(test(info.st_mode) for test in (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)):
            raise BangerError(f"{host}{relative} is neither a file nor a folder nor a link", hint="move it elsewhere")
        yield relative, info
        if stat.S_ISDIR(info.st_mode):
            with os.scandir(host + relative) as listing:
                inside = [(f"{relative}/{entry.name}", entry.stat(follow_symlinks=False)) for entry in listing]
            todo += sorted(inside, reverse=True, key=lambda pair: pair[0])


def _content(path: str, limit: int, *, follow: bool) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BangerError(f"{path} is no longer a file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _too_much(f"{path} and what stands beside it are too large")
    return data


def _link(path: str) -> str:
    target = os.readlink(path)  # noqa: PTH115  # its text is kept as it stands
    if not target.isprintable():
        raise BangerError(f"the link {path} leads to a name that no guest is given", hint="rename it")
    return target


def _digest(entries: Iterable[Entry]) -> str:
    """Of everything but the owner, which the file says."""
    total = hashlib.sha256()
    for entry in entries:
        content = hashlib.sha256(entry.data).hexdigest()
        total.update(f"{entry.path}\0{entry.kind}\0{entry.mode:o}\0{content}\n".encode())
    return total.hexdigest()


def _too_much(what: str) -> BangerError:
    hint = f"at most {format_size(MAX_BYTES)} in {MAX_ENTRIES} entries for a VM; a volume takes more"
    return BangerError(what, hint=hint)


@contextmanager
def _readable(host: str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise BangerError(f"cannot read {problem.filename or host} on the host: {problem.strerror}") from None
