"""Tars as nobody should write them: every field of a header can be anything.

Texts stand for bytes, one character each (latin-1), so that a case in YAML can say any byte.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from reconciler.drivers.images.flatten import Layer

END = bytes(1024)
OCI = "application/vnd.oci.image.layer.v1.tar"
MTIME = 1700000000
# Where each field of a header is, and how long.
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "sparse": (386, 109),
    "tail": (508, 4),
}
TYPES = {"file": "0", "hardlink": "1", "symlink": "2", "char": "3", "block": "4", "dir": "5", "fifo": "6"}


def raw(value: object) -> bytes:
    """The bytes that a case means: text, a number of anything, or text that is repeated."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return raw(value.get("start", "")) + raw(value["repeat"]) * value["times"] + raw(value.get("end", ""))
    return str(value).encode("latin-1")


def header(**fields: object) -> bytes:
    """A header block with these fields, and a checksum that is right unless it is given."""
    block = bytearray(512)
    for field, value in {"magic": "ustar\x0000", "mode": "0000644", "mtime": f"{MTIME:o}", **fields}.items():
        start, length = FIELDS[field]
        data = raw(value)
        assert len(data) <= length, (field, data)
        block[start : start + len(data)] = data
    if "checksum" not in fields:
        total = sum(block[:148]) + sum(block[156:]) + 8 * 32
        block[148:156] = b"%06o\0 " % total
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: Mapping[str, object], flag: str = "x") -> bytes:
    """An extended header."""
    data = b"".join(record(raw(keyword), raw(value)) for keyword, value in records.items())
    return header(name="pax", type=flag, size=f"{len(data):o}") + padded(data)


def record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 20) if n == len(rest) + len(str(n)))
    return str(length).encode() + rest


def entry(name: object, type: str = "file", **more: Any) -> bytes:
    """One member. `more`: content, link, pax, long (GNU's long name), longlink, and any field of the header."""
    content = raw(more.pop("content", ""))
    parts = [pax(more.pop("pax"))] if "pax" in more else []
    data = raw(name)
    for flag, value in (("K", more.pop("longlink", None)), ("L", more.pop("long", None))):
        if value is not None:
            text = raw(value) + b"\0"
            parts.append(header(name="././@LongLink", type=flag, size=f"{len(text):o}") + padded(text))
    if len(data) > 100:
        parts.append(pax({"path": data}))
        data = data[:100]
    if len(link := raw(more.pop("link", ""))) > 100:
        parts.append(pax({"linkpath": link}))
        link = link[:100]
    fields = {"name": data, "type": TYPES.get(type, type), "link": link, "size": f"{len(content):o}", **more}
    if type == "dir":
        fields.setdefault("mode", "0000755")
    return b"".join([*parts, header(**fields), padded(content)])


def archive(members: Sequence[Mapping[str, Any]]) -> bytes:
    """A whole tar. A member is an entry, `{raw: BYTES}`, or `{global: RECORDS}`; the last may be `{end: BYTES}`."""
    parts = []
    end = END
    for member in members:
        if "raw" in member:
            parts.append(raw(member["raw"]))
        elif "global" in member:
            parts.append(pax(member["global"], "g"))
        elif "end" in member:
            end = raw(member["end"])
        else:
            parts.append(entry(**member))
    return b"".join(parts) + end


def layer(path: Path, tar: bytes, packing: str = "plain") -> Layer:
    """Writes a layer and describes it rightly."""
    data = {
        "plain": lambda: tar,
        "gzip": lambda: gzip.compress(tar, 1, mtime=0),
        "zstd": lambda: zstandard.ZstdCompressor(level=1).compress(tar),
    }[packing]()
    path.write_bytes(data)
    return Layer(
        path=path,
        media_type=OCI + {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}[packing],
        digest=digest(data),
        size=len(data),
        diff_id=digest(tar),
    )


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
