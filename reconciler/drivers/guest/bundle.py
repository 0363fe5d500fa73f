"""What carries files into a guest: the archive that files.sh unpacks there, on the config disk or over a channel."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from importlib import resources

from reconciler.drivers.guest.sources import Entry, Kind

SCRIPT = "banger/files.sh"
"""Where a guest has files.sh, below /run."""

Member = tuple[str, bytes, int]
"""Name, content and mode."""


def script() -> str:
    return resources.files(__package__).joinpath("files.sh").read_text(encoding="utf-8")


def members(entries: Iterable[Entry]) -> Iterator[Member]:
    """The files of the archive, in an order in which parents come first."""
    entries = sorted(entries, key=lambda entry: entry.path)
    lines = []
    for entry in entries:
        key = hashlib.sha256(entry.path.encode()).hexdigest()[:32]
        content = hashlib.sha256(entry.data).hexdigest()
        lines.append("\t".join((key, entry.kind, f"{entry.mode:o}", entry.owner, content, entry.path)))
        if entry.kind is not Kind.FOLDER:
            yield f"files/content/{key}", entry.data, 0o600
    yield "files/list", "".join(f"{line}\n" for line in lines).encode(), 0o600


def archive(entries: Iterable[Entry]) -> bytes:
    """The members alone, for a guest that runs. The same entries give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("files", "files/content"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o700
            tar.addfile(folder)
        for name, content, mode in members(entries):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
