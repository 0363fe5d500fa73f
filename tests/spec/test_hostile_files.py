"""Hostile files end in a SpecError soon and in little memory, whatever they hold."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.lib.errors import UsageError
from reconciler.spec import SpecError, load_file, load_text
from reconciler.spec.load import MAX_DEPTH, MAX_WEIGHT
from reconciler.spec.problems import MAX_SHOWN

MIB = 1024**2
EXAMPLE = Path(__file__).parent.parent.parent / "banger.yaml.example"
HEAD = b"""apiVersion: banger/v1
name: demo
kernels: {k: {debian: {suite: bookworm}}}
images: {base: {debian: {suite: bookworm}, kernel: k}}
"""


def each(count: int, line: str) -> bytes:
    return b"".join(line.replace("#", str(number)).encode() for number in range(count))


def bomb(levels: int) -> bytes:
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]".encode() for n in range(1, levels)]
    return b"\n".join(lines)


FILES: dict[str, bytes] = {
    "alias bomb": bomb(30),
    "alias bomb as vms": HEAD + b"defaults:\n  " + bomb(9).replace(b"\n", b"\n  "),
    "alias of itself": b"a: &a [*a]",
    "alias of itself in a key": b"&a ? *a\n: 1",
    "long text repeated": b"a: &a " + b"x" * 500_000 + b"\nb: [" + b"*a," * 50_000 + b"]",
    "flow lists": b"[" * MIB,
    "flow mappings": b"{a: " * (MIB // 4),
    "block lists": b"- " * (MIB // 2),
    "explicit keys": b"? " * (MIB // 2),
    "long list": b"a: [" + b"a," * (MIB // 2 - 10) + b"]",
    "many keys": each(90_000, "k#: 1\n"),
    "equal keys": b"a: 1\n" * (MIB // 5),
    "many anchors": each(49_000, "k#: &a# 1\n")[:MIB],
    "many tags": each(50_000, "%TAG !a#! x\n")[:MIB],
    "tags without values": b"! " * (MIB // 2),
    "anchors without values": b"&a " * (MIB // 3),
    "aliases without anchors": b"*a " * (MIB // 3),
    "ports of many vms": HEAD
    + b"vms:\n  a: {image: base, count: 256, ports: ["
    + b",".join(b'"%d:%d"' % (1024 + n, n + 1) for n in range(64))
    + b"]}\n",
    "one port often": HEAD + b"vms:\n" + each(1000, "  a#: {image: base, ports: ['9000:1', '[fd00::1]:9000:1']}\n"),
    "egress that multiplies": HEAD
    + b"networks:\n"
    + each(
        64, "  n#: {cidr: 10.#.0.0/24, egress: [" + "{to: a.b, ports: &p [1, 2, 3, 4, 5, 6, 7, 8, 9]}," * 64 + "]}\n"
    ),
    "egress of strange names": HEAD
    + b"networks:\n"
    + each(64, "  n#: {cidr: 10.#.0.0/24, egress: [" + "{to: " + "a-" * 120 + "}," * 1 + "]}\n"),
    "long word": b"a: " + b"x" * (MIB - 10),
    "long key": b"x" * (MIB - 10) + b": 1",
    "long quoted key": b'? "' + b"x" * (MIB - 30) + b'"\n: 1',
    "escapes": b'a: "' + b"\\x41" * (MIB // 4 - 10) + b'"',
    "block text": b"a: |\n" + b" x\n" * (MIB // 3 - 10),
    "continued word": b"a: b\n" + b"  c\n" * (MIB // 4 - 10),
    "quoted line breaks": b"a: '" + b"\n" * (MIB - 10) + b"'",
    "comment": b"#" * MIB,
    "spaces": b" " * MIB,
    "line breaks": b"\n" * MIB,
    "documents": b"---\n" * (MIB // 4),
    "colons": b"a:" * (MIB // 2),
    "huge integer": HEAD + b"defaults: {cpus: " + b"9" * 900_000 + b"}",
    "wrong words": HEAD.replace(b"bookworm}, kernel", b"bookworm, packages: [" + b"1," * 20_000 + b"]}, kernel"),
    "undeclared parameters": HEAD + b"defaults: [" + b"'${p}'," * 20_000 + b"]",
    "many vms": HEAD + b"vms:\n" + each(9_000, "  v#: {image: base, count: 256}\n"),
    "many wrong vms": HEAD + b"vms:\n" + each(1_000, "  v#: {image: bese, cpus: x, y: 1}\n"),
    "many networks": HEAD + b"networks:\n" + each(9_000, "  n#: {cidr: 10.0.0.0/16}\n"),
    "parameters that grow": b"params: {p: {type: string, default: "
    + b"x" * 1000
    + b"}}\n"
    + HEAD
    + b"defaults: ["
    + each(15_000, "'${p}${p}${p}${p}',")
    + b"]",
    "zeros": b"\0" * MIB,
    "random": bytes((i * 7919 + (i >> 8) * 104729) & 255 for i in range(100_000)),
}


# The promise is 0.3 s on an idle machine. The kernel ends the child where the cost is of another order, such as a
# quadratic one; memory is that of the whole process, interpreter and libraries included.
CHILD = """
import json, resource, sys
from reconciler.spec import SpecError, load_text
resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
try:
    load_text(sys.stdin.buffer.read(), "bad", {}, {})
except SpecError as error:
    # Not ru_maxrss, which starts at what the process had before its exec: the test runner's size (getrusage(2)).
    status = open("/proc/self/status").read()
    peak = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps([error.exit_code, str(error), [problem.line for problem in error.errors], peak]))
"""


@pytest.mark.parametrize("name", FILES)
def test_costs_little(name: str) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD], input=FILES[name], capture_output=True, check=False)
    assert (child.returncode, child.stderr) == (0, b"")
    exit_code, text, lines, peak = json.loads(child.stdout)
    assert exit_code == 2
    assert lines and all(lines)
    assert len(text) < 20_000 and len(text.splitlines()) <= MAX_SHOWN + 1
    assert peak < 100 * 1024, "KiB"


def test_every_prefix_of_a_file_is_right_or_refused() -> None:
    data = EXAMPLE.read_bytes()
    for length in range(len(data)):
        try:
            load_text(data[:length], "cut", {}, {})
        except SpecError as error:
            assert error.errors


def test_every_damaged_byte_is_right_or_refused() -> None:
    data = EXAMPLE.read_bytes()
    for position in range(0, len(data), 3):
        for byte in b"\0\t:{[&*!'\"%\xff":
            try:
                load_text(data[:position] + bytes([byte]) + data[position + 1 :], "damaged", {}, {})
            except SpecError as error:
                assert error.errors


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "f:1:1: the file is empty; write one with `banger init`"),
        (b"\xef\xbb\xbfname: x\n", "f:1:1: starts with a byte order mark; save the file as UTF-8 without BOM"),
        ("name: x\n".encode("utf-16"), "f:1:1: is UTF-16; save the file as UTF-8"),
        (b"name: x\nk: \xe9\n", "f:2:4: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"name: x\nk: \xc3\xa9\0\n", "f:2:5: a NUL byte; the file is damaged or no text; restore it"),
        (b"name: \x1b[31mx\n", "f:1:7: the control character U+001B; remove it"),
        (b"name: x\r\nk: \x07\r\n", "f:2:4: the control character U+0007; remove it"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_text(data, "f", {}, {})
    assert str(caught.value) == told


def test_depth_is_bounded_where_the_message_says() -> None:
    with pytest.raises(SpecError, match=f"nested deeper than {MAX_DEPTH} levels"):
        load_text(b"[" * (MAX_DEPTH + 1), "f", {}, {})
    with pytest.raises(SpecError, match="nests deeper"):
        nested = b"[" * 20 + b"]" * 20
        load_text(b"a: &a " + nested + b"\nb: " + b"[" * 20 + b"*a" + b"]" * 20, "f", {}, {})


def test_weight_is_bounded_where_the_message_says() -> None:
    within = HEAD + b"params: [" + b"1," * (MAX_WEIGHT - 100) + b"]"
    with pytest.raises(SpecError, match="params: expected a mapping, found a list"):
        load_text(within, "f", {}, {})
    with pytest.raises(SpecError, match=f"more than {MAX_WEIGHT} values"):
        load_text(within.replace(b"[", b"[" + b"1," * 100, 1), "f", {}, {})


def test_what_parameters_fill_in_is_bounded() -> None:
    with pytest.raises(SpecError) as caught:
        load_text(FILES["parameters that grow"], "f", {}, {})
    (problem,) = caught.value.errors
    assert problem.message == "the parameters fill in more than 4 MiB of text"


def test_many_problems_are_cut() -> None:
    with pytest.raises(SpecError) as caught:
        load_text(HEAD + each(150, "k#: 1\n"), "f", {}, {})
    lines = str(caught.value).splitlines()
    assert len(caught.value.errors) == 150
    assert len(lines) == MAX_SHOWN + 1 and lines[-1] == "and 100 more"
    assert [problem.line for problem in caught.value.errors] == list(range(5, 155))


def make_directory(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * MIB)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "there is no such file; write one with `banger init`"),
        (make_directory, "is a directory; name a regular file"),
        (os.mkfifo, "is a named pipe; name a regular file"),
        (make_socket, "is a socket; name a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a character device; name a regular file"),
        (make_large, "is larger than 1 MiB; split it into several environments, one file each"),
        (make_loop, "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "there is no such file; write one with `banger init`"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("banger.yaml")
    make(path)
    with pytest.raises(SpecError) as caught:
        load_file(path, env={})
    assert str(caught.value) == f"banger.yaml: {told}"


def test_a_file_that_becomes_a_pipe_meanwhile_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "banger.yaml"
    path.write_bytes(HEAD)
    honest = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda self, **_: honest)
    with pytest.raises(SpecError, match="is a named pipe"):
        load_file(path, env={})


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(HEAD)
    (tmp_path / "link").symlink_to("real")
    assert load_file(tmp_path / "link", env={}).desired.environment == "demo"


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "banger.yaml"
    path.write_bytes(HEAD)
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(SpecError, match="permission denied"):
            load_file(path, env={})
        return
    # Root may read everything, so a child tries as somebody else.
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH and folder.owner() == "root":
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            load_file(path, env={})
        except SpecError as error:
            os._exit(0 if "permission denied" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_importing_the_package_brings_no_parser() -> None:
    code = "import sys, reconciler.spec; print([m for m in ('yaml', 'jsonschema', 'hashlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_spec_error_is_a_usage_error() -> None:
    assert issubclass(SpecError, UsageError) and SpecError([]).exit_code == 2
