"""A checked tree to the model, and the checks that span more than one value.

Everything is looked at even where something else is wrong; what depends on a value that was already reported is
passed over in silence, so that each mistake is told once.
"""

from __future__ import annotations

from reconciler.model.desired import NO_NETWORK, USER_NETWORK, Controller, DesiredState, Image, Kernel
from reconciler.spec import published
from reconciler.spec.defaults import look_up, names_of
from reconciler.spec.networks import resolve_networks
from reconciler.spec.problems import Path, did_you_mean, quote
from reconciler.spec.tree import Document, ScalarNode
from reconciler.spec.values import RESYNC, fraction, seconds
from reconciler.spec.vms import Names, resolve_vms


def resolve(document: Document) -> DesiredState | None:
    """The environment that the document asks for, or None after adding at least one problem to the document."""
    if document.root.bad:
        return None
    networks = resolve_networks(document)
    kernels = _kernels(document)
    images = _images(document)
    vms = resolve_vms(
        document,
        Names(set(names_of(document, "images")), {*names_of(document, "networks"), USER_NETWORK, NO_NETWORK}),
        networks=networks,
        kernels=kernels,
        images=images,
    )
    name = look_up(document, ("name",))
    controller = _controller(document)
    if document.problems or not name.usable or controller is None:
        return None
    return DesiredState(
        environment=str(name.value),
        networks=networks,
        kernels=kernels,
        images=images,
        vms=vms,
        controller=controller,
    )


def _controller(document: Document) -> Controller | None:
    default = published.defaults("controller")
    given = {key: look_up(document, ("controller", key), default=value) for key, value in default.items()}
    resync = seconds(document, given["resync"], *RESYNC)
    max_delete = fraction(document, given["maxDelete"])
    if resync is None or max_delete is None or not given["prune"].usable:
        return None
    return Controller(resync=resync, prune=bool(given["prune"].value), max_delete=max_delete)


def _kernels(document: Document) -> dict[str, Kernel]:
    found = {}
    for name in names_of(document, "kernels"):
        path: Path = ("kernels", name, "debian")
        suite = look_up(document, (*path, "suite"))
        package = look_up(document, (*path, "package"), default=published.defaults("debianKernel")["package"])
        if suite.usable and package.usable:
            found[name] = Kernel(name=name, suite=suite.value, package=package.value)
    return found


def _images(document: Document) -> dict[str, Image]:
    known = names_of(document, "kernels")
    found = {}
    for name in names_of(document, "images"):
        path: Path = ("images", name)
        suite = look_up(document, (*path, "debian", "suite"))
        kernel = look_up(document, (*path, "kernel"))
        if kernel.usable and kernel.value not in known and not document.is_bad(("kernels",)):
            hint = did_you_mean(kernel.value, known) or "declare it under `kernels`"
            document.report(kernel.path, f"there is no kernel {_named(document, kernel.path)}", hint)
        if suite.usable and kernel.usable:
            packages = tuple(sorted(set(_packages(document, (*path, "debian", "packages")))))
            found[name] = Image(name=name, suite=suite.value, packages=packages, kernel=kernel.value)
    return found


def _packages(document: Document, path: Path) -> list[str]:
    given = look_up(document, path)
    return [text for index, text in enumerate(given.value or []) if not document.is_bad((*path, index))]


def _named(document: Document, path: Path) -> str:
    node = document.find(path)
    return quote(node.text) if isinstance(node, ScalarNode) else "of this name"
