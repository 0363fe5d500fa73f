"""A VM's `provision` to what the model takes."""

from __future__ import annotations

from reconciler.lib.units import parse_duration
from reconciler.model.inside import ProvisionStep
from reconciler.model.vm import NO_NETWORK
from reconciler.spec import published
from reconciler.spec.defaults import VmFields
from reconciler.spec.inside import host_path
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document

_TIMEOUT = (1.0, 86400.0)


def resolve_provision(document: Document, fields: VmFields, network: str | None) -> tuple[ProvisionStep, ...]:
    """The steps of a VM in the order of the file."""
    given = fields.get("provision")
    if not given.usable or not given.value:
        return ()
    if network == NO_NETWORK:
        hint = "choose the network `user`, which needs no root"
        document.report(given.path, f"cannot be done in a guest on the network {network!r}", hint, key=True)
        return ()
    default = published.defaults("provisionStep")
    found = []
    for index, entry in enumerate(given.value):
        here: Path = (*given.path, index)
        if document.is_bad(here) or not isinstance(entry, dict) or any(document.is_bad((*here, k)) for k in entry):
            continue
        if len({"run", "script"} & set(entry)) != 1:
            document.report(here, "needs either `run` or `script`", "for example `run: apt-get update`", key=True)
            continue
        timeout = parse_duration(entry.get("timeout", default["timeout"]))
        script = host_path(document, (*here, "script"), entry["script"]) if "script" in entry else None
        if not _TIMEOUT[0] <= timeout <= _TIMEOUT[1]:
            shown = document.shown((*here, "timeout"))
            document.report((*here, "timeout"), f"{shown} is out of bounds", "write 1s to 1d")
        elif "run" in entry or script is not None:
            once = entry.get("once", default["once"])
            found.append(ProvisionStep(run=entry.get("run"), script=script, once=once, timeout=timeout))
    return tuple(found)
