"""`kernels` and `images` of the file: each says by one key where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from reconciler.model.artifacts import DebianImage, DebianKernel, Image, ImageSource, Kernel, KernelSource
from reconciler.spec import published
from reconciler.spec.defaults import look_up, names_of
from reconciler.spec.problems import Path, did_you_mean, quote
from reconciler.spec.tree import Document, MapNode, ScalarNode

S = TypeVar("S")


def resolve_kernels(document: Document) -> dict[str, Kernel]:
    found = {}
    for name in names_of(document, "kernels"):
        source = _source(document, ("kernels", name), _KERNELS)
        if source is not None:
            found[name] = Kernel(name=name, source=source)
    return found


def resolve_images(document: Document) -> dict[str, Image]:
    known = names_of(document, "kernels")
    found = {}
    for name in names_of(document, "images"):
        path: Path = ("images", name)
        kernel = look_up(document, (*path, "kernel"))
        if kernel.usable and kernel.value not in known and not document.is_bad(("kernels",)):
            hint = did_you_mean(kernel.value, known) or "declare it under `kernels`"
            document.report(kernel.path, f"there is no kernel {_named(document, kernel.path)}", hint)
        source = _source(document, path, _IMAGES)
        if source is not None and kernel.usable:
            found[name] = Image(name=name, source=source, kernel=kernel.value)
    return found


def _source(document: Document, path: Path, readers: Mapping[str, Callable[[Document, Path], S | None]]) -> S | None:
    """What the one key that says where it comes from has; None if the schema's check found none, or several."""
    node = document.find(path)
    keys = [key for key in readers if isinstance(node, MapNode) and key in node.members]
    if len(keys) != 1 or document.is_bad((*path, keys[0])):
        return None
    return readers[keys[0]](document, (*path, keys[0]))


def _debian_kernel(document: Document, path: Path) -> KernelSource | None:
    suite = look_up(document, (*path, "suite"))
    package = look_up(document, (*path, "package"), default=published.defaults("debianKernel")["package"])
    return DebianKernel(suite=suite.value, package=package.value) if suite.usable and package.usable else None


def _debian_image(document: Document, path: Path) -> ImageSource | None:
    suite = look_up(document, (*path, "suite"))
    packages = look_up(document, (*path, "packages"))
    names = {name for index, name in enumerate(packages.value or []) if not document.is_bad((*packages.path, index))}
    return DebianImage(suite=suite.value, packages=tuple(sorted(names))) if suite.usable else None


_KERNELS: Mapping[str, Callable[[Document, Path], KernelSource | None]] = {DebianKernel.tag: _debian_kernel}
_IMAGES: Mapping[str, Callable[[Document, Path], ImageSource | None]] = {DebianImage.tag: _debian_image}


def _named(document: Document, path: Path) -> str:
    node = document.find(path)
    return quote(node.text) if isinstance(node, ScalarNode) else "of this name"
