"""What a squashfs has, read by another program than made it (sqfs2tar of squashfs-tools-ng)."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

_TYPES = {
    tarfile.DIRTYPE: "dir",
    tarfile.REGTYPE: "file",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True)
class Node:
    """Everything of one path; hard links have the node of their file, and are told apart by `Tree.groups`."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    content: str = ""
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()


@dataclass
class Tree:
    """Nodes by path (latin-1), and which paths are one file."""

    nodes: dict[str, Node] = field(default_factory=dict)
    groups: set[frozenset[str]] = field(default_factory=set)


def of_squashfs(path: Path) -> Tree:
    done = subprocess.run(["sqfs2tar", "--root-becomes", ".", str(path)], capture_output=True, check=True)
    return of_tar(done.stdout)


def of_tar(data: bytes) -> Tree:
    """Of a tar that a trusted program wrote."""
    tree = Tree()
    groups: dict[str, set[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), encoding="latin-1", errors="surrogateescape") as tar:
        for member in tar:
            name = member.name.removeprefix("./").strip("/") or "."
            if member.islnk():
                target = member.linkname.removeprefix("./")
                groups.setdefault(target, {target}).add(name)
                tree.nodes[name] = tree.nodes[target]
                continue
            file = tar.extractfile(member) if member.isreg() else None
            tree.nodes[name] = Node(
                type=_TYPES[member.type],
                mode=member.mode,
                uid=member.uid,
                gid=member.gid,
                mtime=int(member.mtime),
                content=content(file.read()) if file else "",
                link=member.linkname if member.issym() else "",
                device=(member.devmajor, member.devminor) if member.isdev() and not member.isfifo() else (0, 0),
                xattrs=tuple(
                    sorted(
                        (key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape").decode("latin-1"))
                        for key, value in member.pax_headers.items()
                        if key.startswith("SCHILY.xattr.")
                    )
                ),
            )
    tree.groups = {frozenset(group) for group in groups.values()}
    return tree


def content(data: bytes) -> str:
    """Short contents as they are, long ones by their digest."""
    return data.decode("latin-1") if len(data) <= 4096 else hashlib.sha256(data).hexdigest()
