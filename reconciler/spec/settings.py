"""A VM's `env` and `secrets` to what the model takes. No value of a secret is read here."""

from __future__ import annotations

from typing import Any

from reconciler.model.inside import ROOT_OWNER, Secret, Variable
from reconciler.model.vm import NO_NETWORK
from reconciler.spec.defaults import VmFields
from reconciler.spec.inside import guest_path, host_path, owner_of
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document

_SOURCES = ("env", "file", "command")
_PRIVATE = "0600"
_MAX_ENV = 64 * 1024


def resolve_env(document: Document, fields: VmFields) -> tuple[Variable, ...]:
    """The variables of a VM, sorted by name."""
    given = fields.get("env")
    if not given.usable or not given.value:
        return ()
    found = []
    for name, value in sorted(given.value.items()):
        here: Path = (*given.path, name)
        if document.is_bad(here):
            continue
        if not value.isprintable():
            document.report(here, "has a line break or another control character", "use `files` for more than a line")
        else:
            found.append(Variable(name=name, value=value))
    if sum(len(variable.name) + len(variable.value.encode()) for variable in found) > _MAX_ENV:
        document.report(given.path, "has more than 64 KiB", "use `files` for large values", key=True)
    return tuple(found)


def resolve_secrets(document: Document, fields: VmFields, network: str | None) -> tuple[Secret, ...]:
    """The secrets of a VM, sorted by name."""
    given = fields.get("secrets")
    if not given.usable or not given.value:
        return ()
    if network == NO_NETWORK:
        hint = "choose the network `user`, which needs no root"
        document.report(given.path, f"cannot be brought into a guest on the network {network!r}", hint, key=True)
        return ()
    env = fields.get("env")
    variables = set(env.value or ()) if env.usable else set()
    found = []
    for name, entry in sorted(given.value.items()):
        here: Path = (*given.path, name)
        if document.is_bad(here) or not isinstance(entry, dict) or any(document.is_bad((*here, k)) for k in entry):
            continue
        if len(set(_SOURCES) & set(entry)) != 1:
            document.report(here, "needs one of `env`, `file` or `command`", f"for example `env: {name}`", key=True)
        elif entry.get("command") == []:
            document.report((*here, "command"), "is empty", "write a program and its arguments")
        elif name in variables and "guest" not in entry:
            document.report(here, f"{name!r} is a variable of `env` already", "keep one of them", key=True)
        elif (secret := _secret(document, here, name, entry)) is not None:
            found.append(secret)
    return tuple(found)


def _secret(document: Document, here: Path, name: str, entry: dict[str, Any]) -> Secret | None:
    file = host_path(document, (*here, "file"), entry["file"]) if "file" in entry else None
    guest = guest_path(document, (*here, "guest"), entry["guest"]) if "guest" in entry else None
    command = tuple(entry.get("command", ()))
    if command and ("/" in command[0] or command[0].startswith("~")):
        program = host_path(document, (*here, "command", 0), command[0])
        command = (program, *command[1:]) if program is not None else ()
    if (
        ("file" in entry and file is None)
        or ("guest" in entry and guest is None)
        or ("command" in entry and not command)
    ):
        return None
    return Secret(
        name=name,
        env=entry.get("env"),
        file=file,
        command=command,
        guest=guest,
        mode=int(entry.get("mode", _PRIVATE), 8),
        owner=owner_of(entry.get("owner", ROOT_OWNER)),
    )
