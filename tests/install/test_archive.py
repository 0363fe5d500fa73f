"""The helper's one file: the same bytes each time, and nothing needed beside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

from reconciler.helper.client import decode_answer
from reconciler.helper.protocol import Refusal
from reconciler.install.archive import helper_archive
from reconciler.install.layout import PACKAGE


def test_the_same_sources_make_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "reconciler"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    (copy / "helper" / "__pycache__").mkdir()
    (copy / "helper" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert helper_archive(copy) == helper_archive(PACKAGE)


def test_another_helper_makes_other_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "reconciler"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "helper" / "audit.py").write_text("")
    assert helper_archive(copy) != helper_archive(PACKAGE)


def test_only_the_root_side_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "helper.pyz").write_bytes(helper_archive(PACKAGE))
    names = zipfile.ZipFile(tmp_path / "helper.pyz").namelist()
    helper = sorted(f"reconciler/helper/{path.name}" for path in (PACKAGE / "helper").glob("*.py"))
    assert "reconciler/helper/server.py" in helper
    assert names == ["__main__.py", "reconciler/__init__.py", *helper]


def test_it_serves_with_the_standard_library_alone(tmp_path: Path) -> None:
    program = tmp_path / "helper.pyz"
    program.write_bytes(helper_archive(PACKAGE))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # As the unit does: no environment, no site, no bytecode.
        argv = [sys.executable, "-I", "-S", "-B", str(program), "--fd", str(theirs.fileno())]
        child = subprocess.Popen(argv, cwd="/", pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()
        payload = b'{"version": 1, "id": "x", "op": "none"}'
        ours.sendall(len(payload).to_bytes(4, "big") + payload)
        ours.settimeout(20)
        size = int.from_bytes(ours.recv(4), "big")
        answer = decode_answer(ours.recv(size))
        ours.close()
        assert isinstance(answer.outcome, Refusal)
        assert child.wait(20) == 0
        assert child.stderr is not None and b"banger-helper" in child.stderr.read()
        child.stderr.close()
