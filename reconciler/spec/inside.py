"""What a VM's guest is to hold: `files` to what the model takes. Nothing of the host is read."""

from __future__ import annotations

import os
import posixpath

from reconciler.model.inside import RESERVED, ROOT_OWNER, GuestFile, reserved
from reconciler.spec.defaults import VmFields
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document


def resolve_files(document: Document, fields: VmFields) -> tuple[GuestFile, ...]:
    """The files of a VM in the order of the file; what is wrong with them is added to the document."""
    given = fields.get("files")
    if not given.usable or not given.value:
        return ()
    found: dict[str, GuestFile] = {}
    for index, entry in enumerate(given.value):
        here: Path = (*given.path, index)
        if document.is_bad(here) or not isinstance(entry, dict):
            continue
        if len({"content", "host"} & set(entry)) != 1:
            document.report(here, "needs either `content` or `host`", "for example `content: hello`", key=True)
        elif "guest" in entry and not any(document.is_bad((*here, key)) for key in entry):
            guest = guest_path(document, (*here, "guest"), entry["guest"])
            host = host_path(document, (*here, "host"), entry["host"]) if "host" in entry else None
            if guest in found:
                document.report((*here, "guest"), f"{guest} has a file of this list already", "keep one of them")
            elif guest is not None and ("content" in entry or host is not None):
                found[guest] = GuestFile(
                    guest=guest,
                    content=entry.get("content"),
                    host=host,
                    mode=int(entry["mode"], 8) if "mode" in entry else None,
                    owner=owner_of(entry.get("owner", ROOT_OWNER)),
                )
    return tuple(found.values())


def host_path(document: Document, path: Path, text: str) -> str | None:
    """An absolute path: `~` is the home of who runs banger, and a relative one begins in the folder of the file."""
    if not text.isprintable():
        document.report(path, f"{document.shown(path)} is not a path", "write it without control characters")
        return None
    expanded = os.path.expanduser(text)  # noqa: PTH111  # of a path that stays text
    if expanded.startswith("~"):
        document.report(path, f"{document.shown(path)} names a user that this host does not have", "write a full path")
        return None
    folder = os.path.dirname(os.path.abspath(document.file))  # noqa: PTH100, PTH120
    return os.path.normpath(os.path.join(folder, expanded))  # noqa: PTH118


def guest_path(document: Document, path: Path, text: str) -> str | None:
    """An absolute path in its shortest form, where a file may be."""
    normal = posixpath.normpath(text).replace("//", "/", 1)
    if not text.startswith("/") or not text.isprintable():
        document.report(path, f"{document.shown(path)} is not an absolute path", "write one such as /etc/motd")
    elif normal != text:
        document.report(path, f"{document.shown(path)} is not in its shortest form", f"write {normal}")
    elif reserved(text):
        hint = f"choose a place outside of {', '.join(RESERVED)}"
        document.report(path, f"{document.shown(path)} belongs to the system", hint)
    else:
        return text
    return None


def owner_of(text: str) -> str:
    """`dev` is `dev:dev`."""
    return text if ":" in text else f"{text}:{text}"
