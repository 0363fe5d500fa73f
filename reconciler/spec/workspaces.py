"""The workspace of a VM: which repository, and where to. Whether it is one is found out when it is shipped."""

from __future__ import annotations

import os

from reconciler.model.vm import NO_NETWORK, Workspace
from reconciler.spec import published
from reconciler.spec.defaults import Given, Origin, VmFields, look_up
from reconciler.spec.tree import Document
from reconciler.spec.values import mount_path

_SHARE = "a live mount takes a 9p file system, which the kernels that banger boots do not have (Debian's lacks it)"


def resolve_workspace(document: Document, fields: VmFields, network: str | None) -> Workspace | None:
    """The workspace, whole from where it is said; None without one, or after a problem was reported."""
    given = fields.get("workspace")
    if not given.usable or given.value is None:
        return None
    values = {key: _value(document, given, key) for key in ("host", "guest", "untracked", "mode")}
    if network == NO_NETWORK:
        hint = "give the VM `network: user`, or leave the workspace out"
        document.report(given.path, "nothing can be shipped to a VM with the network 'none'", hint)
    if values["mode"].usable and values["mode"].value == "share":
        hint = "write `mode: copy`; `banger workspace push` sends only what has changed"
        document.report(values["mode"].path, _SHARE, hint)
    guest = mount_path(document, values["guest"], what="a workspace")
    if guest is None or not values["host"].usable or not values["untracked"].usable:
        return None
    return Workspace(
        host=_folder(document, str(values["host"].value)), guest=guest, untracked=bool(values["untracked"].value)
    )


def _value(document: Document, given: Given, key: str) -> Given:
    found = look_up(document, (*given.path, key), default=published.defaults("workspace").get(key))
    if found.origin is Origin.NOWHERE:
        return Given(found.path, Origin.BAD)  # the schema has told of it
    return found


def _folder(document: Document, host: str) -> str:
    """Absolute, the same for everybody who reads the same file, whatever way it was named."""
    home = os.path.realpath(os.path.dirname(os.path.abspath(document.file)))  # noqa: PTH100, PTH120  # text, not files
    return os.path.normpath(os.path.join(home, os.path.expanduser(host)))  # noqa: PTH111, PTH118
