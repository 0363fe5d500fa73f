"""Archives that are nearly right: made by three writers, then changed where it hurts."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from pathlib import Path

from tests.drivers.images import archives

_BLOCK = 512
_NAMES = (
    "a",
    "b",
    "d",
    "d/a",
    "d/e",
    "d/e/f",
    "l",
    "x" * 99,
    "y" * 140,
    "d/" + "z" * 120,
    "\xe9",
    "s p",
    "n\nl",
    "./a",
    "d//a",
)
_TARGETS = ("a", "d", "d/a", "/etc/passwd", "../a", "../../x", "l", "t" * 120, "d/e")
_FIELDS = (
    "name",
    "mode",
    "uid",
    "gid",
    "size",
    "mtime",
    "checksum",
    "type",
    "link",
    "magic",
    "prefix",
    "major",
    "minor",
)
_VALUES = {
    "name": ("", "/", "..", "../x", "a/..", "/abs", "d", "a", "l/x", "d/", "a\0b", "x" * 100, "\xff", "./", "."),
    "link": ("", "/", "..", "../x", "a", "d", "l", "/etc", "a\0b", "\xff"),
    "size": (
        "0",
        "1",
        "511",
        "512",
        "513",
        "777",
        "77777777777",
        "-1",
        " 10",
        "10 ",
        "\x80" + "\0" * 10 + "\x05",
        "\xff" * 12,
        "8",
        "0x1",
        "\0",
    ),
    "mode": ("0", "7777", "100644", "\xff" * 8, "abc", " 644", ""),
    "uid": ("0", "7777777", "\x80\0\0\0\1\0\0\0", "\xff" * 8, "-1", ""),
    "gid": ("0", "7777777", "\x80\0\0\0\1\0\0\0", "\xff" * 8, "9", ""),
    "mtime": ("0", "77777777777", "\xff" * 12, "\x80" + "\0" * 10 + "\x05", "-1", ""),
    "type": tuple("0123456789xgLKSVMDNAZ\0 "),
    "magic": ("ustar\x0000", "ustar  \0", "\0" * 8, "ustar\x0001", "USTAR\x0000"),
    "prefix": ("", "p", "/", "..", "p\0q", "d"),
    "checksum": ("", "0", "777777\0 "),
    "major": ("0", "1", "7777777", "\xff" * 8),
    "minor": ("0", "3", "7777777", "\xff" * 8),
}
_RECORDS = (
    ("path", "a"), ("path", "/p/q"), ("path", "../q"), ("path", ""), ("path", "n\0q"), ("linkpath", "a"), ("linkpath", "../q"),
    ("size", "0"), ("size", "3"), ("size", "600"), ("size", "-1"), ("size", "1e3"), ("size", ""), ("uid", "7"), ("uid", "-7"),
    ("gid", "4294967296"), ("mtime", "12.5"), ("mtime", "nan"), ("mtime", "-3"), ("mode", "777"), ("comment", "x"),
    ("SCHILY.xattr.user.a", "v"), ("SCHILY.xattr.user.overlay.x", "v"), ("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,1,5,2"),
    ("GNU.sparse.major", "1"), ("GNU.sparse.name", "sp"), ("SCHILY.realsize", "5"), ("hdrcharset", "BINARY"), ("VENDOR.k", "v"),
)  # fmt: skip


def archive(dice: random.Random) -> bytes:
    """One archive, three times of four with one to three changes."""
    data = dice.choice((_own, _own, _own, _python, _python))(dice)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        data = dice.choice((_field, _field, _field, _field, _byte, _blocks, _cut, _record, _records))(dice, data)
    return data


def _own(dice: random.Random) -> bytes:
    members = []
    files = ["a"]
    for name in dice.sample(_NAMES, dice.randint(1, 6)):
        kind = dice.choice(("file", "file", "file", "dir", "symlink", "hardlink", "fifo"))
        if name in ("d", "d/e") and dice.random() < 0.8:
            kind = "dir"
        member: dict[str, object] = {"name": name, "type": kind}
        if kind == "file":
            files.append(name)
        if kind == "file":
            member["content"] = "c" * dice.choice((0, 1, 5, 511, 512, 513, 1500))
        elif kind in ("symlink", "hardlink"):
            member["link"] = dice.choice(_TARGETS if kind == "symlink" else files)
        if dice.random() < 0.1:
            member["pax"] = dict(dice.sample(_RECORDS, dice.randint(1, 3)))
        if dice.random() < 0.05:
            member["long"] = dice.choice(_NAMES)
        if dice.random() < 0.2:
            member["magic"] = "ustar  \0"
        members.append(member)
    return archives.archive(members)


def _python(dice: random.Random) -> bytes:
    """By a library that writes archives well."""
    out = io.BytesIO()
    kind = dice.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    seen = []
    with tarfile.open(fileobj=out, mode="w", format=kind, encoding="latin-1") as tar:
        for name in dice.sample(_NAMES, dice.randint(1, 6)):
            member = tarfile.TarInfo(name)
            member.mtime = archives.MTIME + dice.choice((0, 0.25 if kind == tarfile.PAX_FORMAT else 0, 7))
            data = b"c" * dice.choice((0, 3, 700))
            choice = dice.random()
            if choice < 0.2:
                member.type, data = tarfile.DIRTYPE, b""
            elif choice < 0.35:
                member.type, member.linkname, data = tarfile.SYMTYPE, dice.choice(_TARGETS), b""
            elif choice < 0.5 and seen:
                member.type, member.linkname, data = tarfile.LNKTYPE, dice.choice(seen), b""
            seen.append(name)
            member.size = len(data)
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError:
                pass  # a name that this format cannot have
    return out.getvalue()


def _headers(data: bytes) -> list[int]:
    """Where blocks are that look like headers."""
    return [at for at in range(0, len(data) - _BLOCK + 1, _BLOCK) if data[at + 257 : at + 262] in (b"ustar", b"USTAR")]


def _sealed(data: bytearray, at: int) -> bytes:
    block = data[at : at + _BLOCK]
    data[at + 148 : at + 156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
    return bytes(data)


def _field(dice: random.Random, data: bytes) -> bytes:
    if not (headers := _headers(data)):
        return data
    at = dice.choice(headers)
    field = dice.choice(_FIELDS)
    start, length = archives.FIELDS[field]
    value = dice.choice(_VALUES[field]).encode("latin-1")[:length]
    changed = bytearray(data)
    changed[at + start : at + start + length] = value.ljust(length, b"\0")
    return bytes(changed) if field == "checksum" else _sealed(changed, at)


def _byte(dice: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    headers = _headers(data)
    at = dice.choice(headers) if headers and dice.random() < 0.8 else None
    where = dice.randrange(_BLOCK) + at if at is not None else dice.randrange(len(data))
    changed[where] = dice.choice((0, 0x20, 0x30, 0x2F, 0x2E, 0xFF, dice.randrange(256)))
    return _sealed(changed, at) if at is not None and dice.random() < 0.9 else bytes(changed)


def _blocks(dice: random.Random, data: bytes) -> bytes:
    blocks = [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)]
    where = dice.randrange(len(blocks) + 1)
    match dice.randrange(4):
        case 0:
            blocks[where : where + 1] = []
        case 1:
            blocks.insert(where, dice.choice([*blocks, bytes(_BLOCK)]))
        case 2:
            blocks.insert(where, bytes(_BLOCK))
        case _:
            dice.shuffle(blocks)
    return b"".join(blocks)


def _cut(dice: random.Random, data: bytes) -> bytes:
    if dice.random() < 0.3:
        return data + dice.choice((bytes(512), bytes(5), b"x", b"x" * 512, data))
    return data[: dice.randrange(len(data) + 1)]


def _record(dice: random.Random, data: bytes) -> bytes:
    """Spoils an extended header that is there."""
    at = data.find(b"path=") if dice.random() < 0.5 else data.find(b"SCHILY")
    if at < 0:
        return _records(dice, data)
    changed = bytearray(data)
    where = max(0, at + dice.randint(-6, 8))
    changed[where] = dice.choice(b"0123456789 =\n\0/.")
    return bytes(changed)


def _records(dice: random.Random, data: bytes) -> bytes:
    """Puts an extended header, or a long name, before an entry."""
    if not (headers := _headers(data)):
        return data
    at = dice.choice(headers)
    records = dict(dice.sample(_RECORDS, dice.randint(1, 3)))
    flag = dice.choice("xxxxxxg")
    if dice.random() < 0.2:
        text = dice.choice(_NAMES + _TARGETS).encode("latin-1") + dice.choice((b"\0", b"", b"\0x"))
        extra = archives.header(name="././@LongLink", type=dice.choice("LK"), size=f"{len(text):o}") + archives.padded(
            text
        )
    else:
        extra = archives.pax(records, flag)
    return data[:at] + extra + data[at:]


def written_by(program: str, folder: Path, form: str) -> bytes:
    """A tree as another program packs it."""
    argv = [program, f"--format={form}", "-cf", "-", "-C", str(folder), "."]
    return subprocess.run(argv, capture_output=True, check=True).stdout
