"""`kernels` and `images` of the file: each says by one key where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from reconciler.model.artifacts import (
    FROM_IMAGE,
    BuiltImage,
    DebianImage,
    DebianKernel,
    Image,
    ImageFormat,
    ImageKernel,
    ImageSource,
    Kernel,
    KernelSource,
    OciImage,
    UrlImage,
    UrlKernel,
)
from reconciler.spec import published
from reconciler.spec.blobs import check_url, resolve_blob, resolve_sources
from reconciler.spec.builds import resolve_built
from reconciler.spec.catalogs import Catalogs
from reconciler.spec.defaults import Given, look_up, names_of
from reconciler.spec.oci import oci_image
from reconciler.spec.problems import Path, did_you_mean, quote
from reconciler.spec.tree import Document, MapNode, ScalarNode


def resolve_kernels(document: Document, catalogs: Catalogs) -> dict[str, Kernel]:
    found: dict[str, Kernel] = {}
    for name in names_of(document, "kernels"):
        if name == FROM_IMAGE:
            document.report(("kernels", name), f"{name!r} is built in", "give the kernel another name", key=True)
        path: Path = ("kernels", name)
        key = _key(document, path, (*_KERNELS, _CATALOG))
        if key == _CATALOG:
            entry = catalogs.entry("kernels", look_up(document, (*path, key)))
            source = kernel_source(*entry) if entry else None
        else:
            source = kernel_source(document, path)
        if source is not None:
            found[name] = Kernel(name=name, source=source)
    return found


def kernel_source(document: Document, path: Path) -> KernelSource | None:
    """What a kernel is made from, of a file or of a catalog; None if that was or is reported."""
    key = _key(document, path, _KERNELS)
    return _KERNELS[key](document, (*path, key)) if key else None


def image_source(document: Document, path: Path) -> ImageSource | None:
    """What an image is made from that is not built on another; None if that was or is reported."""
    key = _key(document, path, _IMAGES)
    return _IMAGES[key](document, (*path, key)) if key else None


def resolve_images(document: Document, catalogs: Catalogs) -> dict[str, Image]:
    known = names_of(document, "kernels")
    found: dict[str, Image] = {}
    built: dict[str, str] = {}  # name → kernel: they need the identities of what they are built on
    for name in names_of(document, "images"):
        path: Path = ("images", name)
        kernel = look_up(document, (*path, "kernel"))
        if kernel.usable and kernel.value not in (*known, FROM_IMAGE) and not document.is_bad(("kernels",)):
            hint = did_you_mean(kernel.value, known) or "declare it under `kernels`"
            document.report(kernel.path, f"there is no kernel {_named(document, kernel.path)}", hint)
        key = _key(document, path, (*_IMAGES, BuiltImage.tag, _CATALOG))
        if key == BuiltImage.tag:
            built[name] = kernel.value if kernel.usable else ""
            continue
        if key == _CATALOG:
            if (image := _cataloged(document, name, kernel, catalogs)) is not None:
                found[name] = image
            continue
        source = image_source(document, path)
        if source is not None and kernel.usable:
            found[name] = Image(name=name, source=source, kernel=kernel.value)
    found |= resolve_built(document, built, found)
    return {name: found[name] for name in names_of(document, "images") if name in found}


def _cataloged(document: Document, name: str, kernel: Given, catalogs: Catalogs) -> Image | None:
    """An image of a catalog, with the kernel that the file says, or else with the catalog's, which gets the image's name."""
    entry = catalogs.entry("images", look_up(document, ("images", name, _CATALOG)))
    source = image_source(*entry) if entry else None
    if entry is None or source is None or (kernel.written and not kernel.usable):
        return None
    if kernel.usable:
        return Image(name=name, source=source, kernel=kernel.value)
    index, path = entry
    theirs = str(look_up(index, (*path, "kernel")).value)
    if theirs == FROM_IMAGE:
        return Image(name=name, source=source, kernel=FROM_IMAGE)
    if name in names_of(document, "kernels"):
        message = "the kernel that comes with it would have the name of another one of `kernels`"
        document.report(("images", name), message, "rename one of the two, or say which `kernel` boots it", key=True)
        return None
    brought = kernel_source(index, ("kernels", theirs))
    if brought is None:
        return None
    catalogs.use(catalogs.catalog_of(index), index, "kernels", theirs)
    catalogs.kernels[name] = Kernel(name=name, source=brought)
    return Image(name=name, source=source, kernel=name)


def own_kernels(document: Document, images: Mapping[str, Image]) -> tuple[dict[str, Kernel], dict[str, Image]]:
    """The kernels that images bring themselves, named like them, and all images with these names for `from-image`."""
    kernels, all_images = {}, dict(images)
    for image in images.values():
        if image.kernel == FROM_IMAGE:
            if image.name in names_of(document, "kernels"):
                message = "its own kernel would have the name of another one of `kernels`"
                document.report(("images", image.name), message, "rename one of the two", key=True)
            kernels[image.name] = Kernel(name=image.name, source=ImageKernel(image=image.id))
            all_images[image.name] = replace(image, kernel=image.name)
    return kernels, all_images


def _key(document: Document, path: Path, readers: Collection[str]) -> str | None:
    """The one key that says where it comes from; None if the schema's check found none, or several, or it is bad."""
    node = document.find(path)
    if not isinstance(node, MapNode):
        return None
    keys = [key for key in readers if key in node.members]
    if len(keys) != 1 or document.is_bad((*path, keys[0])):
        return None
    for beside, owners in _BESIDE.items():
        if beside in node.members and keys[0] not in owners and not document.is_bad((*path, beside)):
            either = " or ".join(map(repr, owners))
            document.report((*path, beside), f"means nothing beside {keys[0]!r}", f"it goes with {either}", key=True)
    return keys[0]


def _debian_kernel(document: Document, path: Path) -> KernelSource | None:
    suite = look_up(document, (*path, "suite"))
    package = look_up(document, (*path, "package"), default=published.defaults("debianKernel")["package"])
    return DebianKernel(suite=suite.value, package=package.value) if suite.usable and package.usable else None


def _url_kernel(document: Document, path: Path) -> KernelSource | None:
    blob = resolve_blob(document, path[:-1])
    modules = (*path[:-1], "modules")
    written = look_up(document, modules).written
    archive = resolve_blob(document, modules) if written else None
    if blob is None or (written and archive is None):
        return None
    return UrlKernel(url=blob.url, sha256=blob.sha256, modules=archive)


def _url_image(document: Document, path: Path) -> ImageSource | None:
    blob = resolve_blob(document, path[:-1])
    kind = look_up(document, (*path[:-1], "format"), default=published.defaults("image")["format"])
    if blob is None or not kind.usable:
        return None
    return UrlImage(url=blob.url, sha256=blob.sha256, format=ImageFormat(kind.value))


def _debian_image(document: Document, path: Path) -> ImageSource | None:
    suite = look_up(document, (*path, "suite"))
    packages, run = (_texts(document, (*path, key)) for key in ("packages", "run"))
    mirror = look_up(document, (*path, "mirror"))
    sources = resolve_sources(document, (*path, "sources"))
    if not suite.usable or (mirror.written and not check_url(document, mirror)):
        return None
    return DebianImage(
        suite=suite.value, packages=tuple(sorted(set(packages))), mirror=mirror.value, sources=sources, run=tuple(run)
    )


def _texts(document: Document, path: Path) -> list[str]:
    """The entries of a list that are not reported."""
    given = look_up(document, path)
    return [text for index, text in enumerate(given.value or []) if not document.is_bad((*path, index))]


_CATALOG = "catalog"
_KERNELS: Mapping[str, Callable[[Document, Path], KernelSource | None]] = {
    DebianKernel.tag: _debian_kernel,
    UrlKernel.tag: _url_kernel,
    "file": _url_kernel,
}
_IMAGES: Mapping[str, Callable[[Document, Path], ImageSource | None]] = {
    DebianImage.tag: _debian_image,
    OciImage.tag: oci_image,
    UrlImage.tag: _url_image,
    "file": _url_image,
}
# What stands beside the key that says where something comes from, and belongs to it.
_BESIDE: Mapping[str, tuple[str, ...]] = {
    "sha256": ("url", "file"),
    "modules": ("url", "file"),
    "format": ("url", "file"),
    "steps": ("from",),
    "pull": ("oci",),
}


def _named(document: Document, path: Path) -> str:
    node = document.find(path)
    return quote(node.text) if isinstance(node, ScalarNode) else "of this name"
