"""Flattened images beside what umoci and GNU tar unpack of the same layers: every path, with everything about it."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from reconciler.drivers.images.flatten import Layer, flatten
from reconciler.lib.progress import Silent
from tests.drivers.images import archives, trees

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks owners and devices")]

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


def of_folder(top: Path) -> trees.Tree:
    """Of a tree that another program unpacked."""
    tree = trees.Tree()
    inodes: dict[int, set[str]] = {}
    base = os.fsencode(top)
    for folder, folders, files in os.walk(base):
        for path in (os.path.join(folder, name) for name in (*folders, *files)):
            status = os.lstat(path)
            kind = _KINDS[stat.S_IFMT(status.st_mode)]
            name = os.path.relpath(path, base).decode("latin-1")
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            tree.nodes[name] = trees.Node(
                type=kind,
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                mtime=int(status.st_mtime),
                content=trees.content(Path(os.fsdecode(path)).read_bytes()) if kind == "file" else "",
                link=os.readlink(path).decode("latin-1") if kind == "symlink" else "",
                device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in ("char", "block") else (0, 0),
                xattrs=tuple(sorted((key, value.decode("latin-1")) for key, value in attributes.items())),
            )
            if kind != "dir":
                inodes.setdefault(status.st_ino, set()).add(name)
    tree.groups = {frozenset(names) for names in inodes.values() if len(names) > 1}
    return tree


def ours(layers: list[Layer], folder: Path) -> trees.Tree:
    folder.mkdir()
    done = flatten(layers, folder / "x.squashfs", folder, Silent())
    assert done.warnings == ()
    tree = trees.of_squashfs(folder / "x.squashfs")
    del tree.nodes["."]
    return tree


def same(mine: trees.Tree, theirs: trees.Tree) -> None:
    assert mine.nodes.keys() == theirs.nodes.keys()
    assert [(name, node, theirs.nodes[name]) for name, node in mine.nodes.items() if node != theirs.nodes[name]] == []
    assert mine.groups == theirs.groups


def gnu_tar(tar: Path, folder: Path, *more: str) -> trees.Tree:
    folder.mkdir()
    argv = ["tar", *more, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(tar), "-C", str(folder)]
    subprocess.run(argv, check=True)
    return of_folder(folder)


def umoci(layout: Path, tars: list[Path], folder: Path) -> tuple[list[Layer], trees.Tree]:
    """Makes an image of these layers, and unpacks it. Returns its layers as they are in its layout, too."""
    image = f"{layout}:x"
    for argv in (["init", "--layout", str(layout)], ["new", "--image", image]):
        subprocess.run(["umoci", *argv], check=True, capture_output=True)
    for tar in tars:
        subprocess.run(["umoci", "raw", "add-layer", "--image", image, str(tar)], check=True, capture_output=True)
    subprocess.run(["umoci", "raw", "unpack", "--image", image, str(folder)], check=True, capture_output=True)

    def read(digest: str) -> dict[str, object]:
        return json.loads(blob(digest).read_bytes())  # type: ignore[no-any-return]

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = json.loads((layout / "index.json").read_bytes())
    manifest = read(index["manifests"][0]["digest"])
    diff_ids = read(manifest["config"]["digest"])["rootfs"]["diff_ids"]  # type: ignore[index]
    layers = [
        Layer(blob(one["digest"]), one["mediaType"], one["digest"], one["size"], diff_id)
        for one, diff_id in zip(manifest["layers"], diff_ids, strict=True)  # type: ignore[call-overload]
    ]
    return layers, of_folder(folder)


def lower(folder: Path) -> None:
    """A tree with one of everything."""
    for name in ("bin", "etc/sub", "dev", "home/user", "empty", "var/lib/x"):
        (folder / name).mkdir(parents=True)
    (folder / "bin/su").write_text("su")
    (folder / "bin/su").chmod(0o4755)
    os.link(folder / "bin/su", folder / "bin/sudo")
    os.link(folder / "bin/su", folder / "etc/sub/su")
    (folder / "sbin").symlink_to("bin")
    (folder / "etc/absolute").symlink_to("/etc/passwd")
    (folder / "etc/long").symlink_to("../" * 50 + "x" * 90)
    (folder / ("x" * 200)).write_text("long")
    (folder / os.fsdecode(b"caf\xe9")).write_text("bytes")
    os.mknod(folder / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(folder / "dev/disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    os.mkfifo(folder / "dev/pipe", 0o622)
    os.setxattr(folder / "bin/sudo", "user.note", b"\0\xff=\n")
    os.setxattr(folder / "bin/su", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(folder / "etc", "trusted.note", b"1")
    os.chown(folder / "home/user", 1000, 100)
    os.chown(folder / "etc/absolute", 3_000_000, 4_000_000, follow_symlinks=False)
    (folder / "home/user").chmod(0o3770)
    (folder / "var/big").write_bytes(random.Random(1).randbytes(3_000_000))
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (0, 1_000_000_000 + number), follow_symlinks=False)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_one_layer_of_everything(tmp_path: Path, form: str) -> None:
    made = tmp_path / "made"
    made.mkdir()
    lower(made)
    tar = tmp_path / "layer.tar"
    extra = ("--xattrs", "--xattrs-include=*") if form == "pax" else ()
    subprocess.run(["tar", f"--format={form}", *extra, "-cf", str(tar), "-C", str(made), "."], check=True)
    layer = archives.layer(tmp_path / "layer", tar.read_bytes(), "zstd")
    mine = ours([layer], tmp_path / "ours")
    same(mine, gnu_tar(tar, tmp_path / "gnu"))
    same(mine, umoci(tmp_path / "layout", [tar], tmp_path / "umoci")[1])


def upper(dice: random.Random, known: dict[str, str]) -> bytes:
    """A layer as an overlay would give it: with the folders on the way, and in `known` what is there after it."""
    members: list[dict[str, object]] = []
    told: set[str] = set()

    def tell(name: str, **more: object) -> None:
        folder = name.rpartition("/")[0]
        if folder and folder not in told:
            tell(folder, type="dir", mode=f"{dice.choice((0o755, 0o700, 0o2775)):07o}")
        if name not in told:
            told.add(name)
            members.append(
                {
                    "name": name,
                    "mtime": f"{1_500_000_000 + dice.randrange(1 << 20):o}",
                    "uid": f"{dice.randrange(9):07o}",
                    **more,
                }
            )

    files = [name for name, kind in known.items() if kind == "file"]
    for _ in range(dice.randint(3, 12)):
        folders = [name for name, kind in known.items() if kind == "dir" and name not in told]
        match dice.randrange(6):
            case 0 | 1:
                name = dice.choice([name for name, kind in known.items() if kind == "dir"]) + f"/f{dice.randrange(30)}"
                if known.get(name, "file") == "file" and name not in told:
                    tell(name, content="c" * dice.randrange(2000), mode=f"{dice.choice((0o644, 0o4755)):07o}")
                    known[name] = "file"
            case 2 if files:
                name = dice.choice(files)
                if name in known and name not in told:
                    folder, _, base = name.rpartition("/")
                    tell(f"{folder}/.wh.{base}")
                    told.add(name)
                    del known[name]
            case 3:
                name = dice.choice([name for name, kind in known.items() if kind == "dir"]) + f"/d{dice.randrange(9)}"
                if name.count("/") < 6 and name not in known and name not in told:
                    tell(name, type="dir")
                    known[name] = "dir"
            case 4 if len(folders) > 3:
                name = dice.choice(folders[1:])
                if not any(other.startswith(name + "/") for other in told):
                    tell(name, type="dir", mode="0000711")
                    tell(f"{name}/.wh..wh..opq")
                    for other in [other for other in known if other.startswith(name + "/")]:
                        del known[other]
                        told.add(other)
            case 5:
                mine = [name for name in told if known.get(name) == "file"]
                name = f"{dice.choice([name for name, kind in known.items() if kind == 'dir'])}/l{dice.randrange(30)}"
                if mine and name not in known and name not in told:
                    tell(name, type="hardlink", link=dice.choice(sorted(mine)), uid="0000000")
                    known[name] = "file"
    return archives.archive(members)


def test_sixty_layers(tmp_path: Path) -> None:
    dice = random.Random(60)
    known = {"top": "dir"}
    tars = []
    for number in range(60):
        tar = tmp_path / f"{number}.tar"
        tar.write_bytes(upper(dice, known) if number else archives.archive([{"name": "top", "type": "dir"}]))
        tars.append(tar)
    layers, theirs = umoci(tmp_path / "layout", tars, tmp_path / "umoci")
    assert len(layers) == 60 and len(known) > 40
    mine = ours(layers, tmp_path / "ours")
    assert mine.nodes.keys() == known.keys()
    same(mine, theirs)


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    tar = tmp_path / "many.tar"
    with tar.open("wb") as file:
        for folder in range(1000):
            file.write(archives.entry(f"d{folder % 10}/e{folder}", "dir", mode="0000755"))
            file.write(
                b"".join(
                    archives.entry(f"d{folder % 10}/e{folder}/f{number}", content=f"{number}") for number in range(100)
                )
            )
        file.write(archives.END)
    mine = ours([archives.layer(tmp_path / "layer", tar.read_bytes(), "gzip")], tmp_path / "ours")
    theirs = gnu_tar(tar, tmp_path / "gnu")
    assert len(mine.nodes) == 101_010
    for number in range(10):  # no entry of these
        del mine.nodes[f"d{number}"], theirs.nodes[f"d{number}"]
    same(mine, theirs)
