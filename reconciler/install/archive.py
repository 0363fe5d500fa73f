"""The root helper as one file: a zip that Python runs (zipapp, PEP 441), the same bytes from the same sources.

It has the standard library and itself; nothing in it is loaded from a folder that a user can write to.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/bin/python3 -I\n"
_MAIN = "from reconciler.helper.__main__ import run\n\nrun()\n"
# The earliest time that the format knows (APPNOTE.TXT, 4.4.6).
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


def helper_archive(package: Path) -> bytes:
    """The archive of the helper.

    Parameters
    ----------
    package: the folder of the package `reconciler`. Raises OSError.
    """
    sources = {f"reconciler/helper/{path.name}": path.read_bytes() for path in (package / "helper").glob("*.py")}
    sources["reconciler/__init__.py"] = (package / "__init__.py").read_bytes()
    sources["__main__.py"] = _MAIN.encode()
    made = io.BytesIO()
    made.write(SHEBANG)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, sources[name])
    return made.getvalue()
