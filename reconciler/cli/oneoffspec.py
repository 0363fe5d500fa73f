"""The desired state of a one-off VM, from options. They are read as a file is, so that both take the same values."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.cli import resources, target
from reconciler.cli.oneoff import PREFIX
from reconciler.lib.errors import UsageError
from reconciler.model.vm import NO_NETWORK, USER_NETWORK

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState

_OPTIONS = {"ports": "--publish", "volumes": "--volume", "workspace": "PATH", "ready": "--timeout"}
_PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the options ask for. `fields` are those of a VM in a file."""

    name: str
    image: str | None
    fields: Mapping[str, Any]


def desired_of(wanted: Wanted, file: Path | None, settings: Mapping[str, str]) -> DesiredState:
    """An environment with one VM. UsageError names the option that is wrong."""
    from reconciler.spec import SpecError, load_text  # noqa: PLC0415  # brings the parser

    home = _home(file, settings)
    network = str(wanted.fields.get("network", USER_NETWORK))
    if network not in (USER_NETWORK, NO_NETWORK):
        raise UsageError(
            f"--network: {network} belongs to the environment of a file, and a one-off vm is in one of its own",
            hint="leave it out, or take `none`",
        )
    document = {
        "apiVersion": "banger/v1",
        "name": PREFIX + wanted.name,
        "kernels": {_PLACEHOLDER: {"debian": {"suite": "bookworm"}}},
        "images": {_PLACEHOLDER: {"debian": {"suite": "bookworm"}, "kernel": _PLACEHOLDER}},
        "vms": {wanted.name: {"image": _PLACEHOLDER, "restart": "never", **wanted.fields}},
    }
    try:
        made = load_text(json.dumps(document).encode(), "banger run", {}, {})
    except SpecError as error:
        raise UsageError("\n".join(_told(p.path, p.message, p.hint, wanted.name) for p in error.errors)) from None
    image = _image(home, wanted.image)
    kernel = home.kernels[image.kernel]
    vm = dataclasses.replace(
        made.vms[wanted.name], image=image.name, image_id=image.id, kernel=kernel.name, kernel_id=kernel.id
    )
    return dataclasses.replace(made, kernels={kernel.name: kernel}, images={image.name: image}, vms={vm.name: vm})


def volumes(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """`data:1GiB:/data` as a file has it."""
    found = {}
    for text in texts:
        name, _, rest = text.partition(":")
        size, _, mount = rest.partition(":")
        if not (name and size and mount):
            raise UsageError(f"--volume: {text!r} is not NAME:SIZE:MOUNT", hint="for example data:1GiB:/data")
        found[name] = {"size": size, "mount": mount}
    return found


def guest_path(folder: Path) -> str:
    """Where a folder goes in the guest: below root's home, under its own name as far as that can be."""
    return "/root/" + (re.sub(r"[^A-Za-z0-9._@+-]+", "-", folder.name).strip(".-") or "work")


def _home(file: Path | None, settings: Mapping[str, str]) -> DesiredState:
    """Whose images there are: those of the file, else the one that comes along."""
    from reconciler.spec import load_text  # noqa: PLC0415  # brings the parser

    if file is None and not target.LOCAL_SPEC.exists():
        return load_text(resources.example().encode(), "banger.yaml.example", {}, {})
    return target.load(file or target.LOCAL_SPEC, settings).desired


def _image(home: DesiredState, wanted: str | None) -> Any:
    if wanted is None:
        if not home.images:
            raise UsageError("the file has no image", hint="declare one under `images`")
        return next(iter(home.images.values()))
    if wanted not in home.images:
        raise UsageError(f"--image: there is no image {wanted}", hint=f"there are: {', '.join(home.images)}")
    return home.images[wanted]


def _told(path: str, message: str, hint: str, name: str) -> str:
    """A problem with a VM's field as one with an option."""
    field = re.split(r"[.\[]", path.removeprefix(f"vms.{name}").lstrip("."))[0]
    ours = field and path.startswith("vms.")
    option = _OPTIONS.get(field, f"--{field}") if ours else "--name"
    return f"{option}: {message}" + (f"; {hint}" if hint else "")
