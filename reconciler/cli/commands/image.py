"""`banger image …`: the images in the cache, what they came from, and who uses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from reconciler.api.image_forms import image_to
from reconciler.api.service import ApplyOptions, CachedImage, Service
from reconciler.cli import imagecatalog, imagelock, target, wire
from reconciler.cli.options import ImageName, Output, file_option, option, output_option, quiet_option, vm_argument
from reconciler.cli.render import document, listing, table
from reconciler.cli.reporter import reporting
from reconciler.cli.terminal import harmless, put, say
from reconciler.lib.errors import UsageError
from reconciler.lib.units import human_size, rfc3339
from reconciler.model.artifacts import short_digest
from reconciler.model.ids import OBJECT_NAME
from reconciler.model.nouns import API_VERSION

_HEADER = ("ID", "NAME", "SOURCE", "DIGEST", "SIZE", "USED BY", "LAST USE", "PINNED")
_FEW = 3


def _valid(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(OBJECT_NAME, value):
        raise click.BadParameter("at most 31 lower-case letters, digits and hyphens that start with a letter")
    return value


@click.group()
def image() -> None:
    """List the images in the cache, show, pin, lock and remove them.

    They are made by `banger apply`, from `images` of the file. IMAGE is an id, or what a file calls it: `base`, `demo/base`.
    """


image.add_command(imagecatalog.catalog)
image.add_command(imagelock.lock)


@image.command("list")
@output_option()
def list_images(*, output: Output) -> None:
    """List the images in the cache, and what uses them."""
    with wire.service() as service:
        found = service.images()
    if output is Output.NAME:
        for item in found:
            put(f"image/{item.id}")
    elif output is not Output.TABLE:
        put(document(listing([_brief(item) for item in found]), output))
    elif not found:
        say("no images in the cache; `banger apply` makes what a file's `images` declares")
    else:
        put(table(_HEADER, [_row(item) for item in found]))


@image.command()
@output_option()
@click.argument("name", metavar="IMAGE", type=ImageName())
def show(*, output: Output, name: str) -> None:
    """Show one image: what it was made from, what is in it, and what uses it."""
    with wire.service() as service:
        found = choose(service, name)
    if output is Output.NAME:
        put(f"image/{found.id}")
    elif output is not Output.TABLE:
        put(document({"apiVersion": API_VERSION, **image_to(found)}, output))
    else:
        put("\n".join(_portrait(found)))


@image.command()
@quiet_option()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True, type=ImageName())
def rm(*, names: tuple[str, ...], quiet: bool) -> None:
    """Remove images that nothing is made of.

    What a VM, or one in the trash, is made of stays, and so does what is pinned. An image that a file still declares is made
    again by the next apply.
    """
    with wire.service() as service:
        for found in [choose(service, name) for name in dict.fromkeys(names)]:
            freed = service.remove_image(found.id)
            if not quiet:
                say(f"removed image {found.id}, {human_size(freed)}")


def _pinning(verb: str, text: str, *, pinned: bool) -> None:
    """Adds `pin` or `unpin`."""

    def command(*, names: tuple[str, ...], quiet: bool) -> None:
        with wire.service() as service:
            for found in [choose(service, name) for name in dict.fromkeys(names)]:
                changed = service.pin_image(found.id, pinned)
                if not quiet:
                    say(f"{verb}ned image {found.id}" if changed else f"image {found.id} was {verb}ned already")

    command.__doc__ = text
    made: Callable[..., Any] = click.argument("names", metavar="IMAGE...", nargs=-1, required=True, type=ImageName())(
        command
    )
    image.command(verb)(quiet_option()(made))


_pinning("pin", "Keep images, whatever the policy of a file's `cache` says.", pinned=True)
_pinning("unpin", "Leave images to the policy again.", pinned=False)


@image.command()
@vm_argument()
@click.argument("name", metavar="NAME", callback=_valid)
@file_option()
@output_option()
@quiet_option()
def commit(*, file: Path | None, vm: str, name: str, output: Output, quiet: bool) -> None:
    """Make an image of a stopped VM's disk.

    Prints the lines that declare it under `images`. The file that they name is yours: nothing removes it. What belongs to
    one machine only, such as its host keys, is left out; what you put into its files, such as a password, is not.
    """
    with wire.service() as service, reporting(quiet=quiet) as reporter:
        made = service.commit(target.vm(service, vm, file), name, ApplyOptions(), reporter)
    facts = {"file": str(made.path), "sha256": made.sha256, "format": "squashfs", "kernel": made.kernel}
    if output in (Output.JSON, Output.YAML):
        put(document({"apiVersion": API_VERSION, "name": name, "size": made.size, **facts}, output))
    elif output is Output.NAME:
        put(str(made.path))
    else:
        put(document({"images": {name: facts}}, Output.YAML).rstrip())


@image.group()
def cache() -> None:
    """Look after the blobs that images from registries were made of."""


@cache.command()
@option("-n", "--dry-run", is_flag=True, help="Only count what would be freed.")
@output_option()
@quiet_option()
def prune(*, dry_run: bool, output: Output, quiet: bool) -> None:
    """Empty the cache of blobs from registries.

    No image and no VM needs them: they only spare a download. `banger cache prune` removes less, by the file's policy.
    """
    with wire.service() as service:
        found = service.clear_blobs(dry_run)
    if output in (Output.JSON, Output.YAML):
        told = {"apiVersion": API_VERSION, "folder": str(found.folder), "blobs": found.blobs, "size": found.size}
        put(document({**told, "dryRun": dry_run}, output))
    elif output is Output.NAME:
        put(str(found.folder))
    elif not quiet:
        verb = "would free" if dry_run else "freed"
        put(f"{verb} {human_size(found.size)} across {found.blobs} blob(s) in {found.folder}")


def choose(service: Service, text: str) -> CachedImage:
    """The one image that an id, a name or a digest means. UsageError if that is none, or several."""
    wanted = text.removeprefix("image/")
    everything = service.images()
    found = [item for item in everything if wanted in (item.id, *item.names, item.digest)]
    found = found or [item for item in everything if any(wanted == name.partition("/")[2] for name in item.names)]
    if len(found) == 1:
        return found[0]
    if found:
        choice = " or ".join(name for item in found for name in item.names)
        raise UsageError(f"{wanted} means more than one image", hint=f"write {choice}")
    raise UsageError(f"there is no image {wanted} in the cache", hint="banger image list shows those there are")


def _brief(item: CachedImage) -> dict[str, Any]:
    """Without what only `show` tells."""
    return {key: value for key, value in image_to(item).items() if key != "manifest"}


def _row(item: CachedImage) -> list[str]:
    return [
        item.id,
        _some(item.names) or "-",
        harmless(item.source),
        short_digest(item.digest),
        human_size(item.size),
        _some(item.used_by),
        rfc3339(item.used_at),
        "yes" if item.pinned else "",
    ]


def _some(words: tuple[str, ...]) -> str:
    more = f" and {len(words) - _FEW} more" if len(words) > _FEW else ""
    return " ".join(words[:_FEW]) + more


def _portrait(item: CachedImage) -> Iterator[str]:
    made = item.manifest
    config = made.get("config") or {}
    packages = made.get("packages")
    pairs = [
        ("image", item.id),
        ("names", " ".join(item.names)),
        ("source", item.source),
        ("digest", item.digest),
        ("manifest", made.get("manifest", "") if made.get("manifest") != item.digest else ""),
        ("size", human_size(item.size)),
        ("created", made.get("created", "")),
        ("last use", rfc3339(item.used_at)),
        ("pinned", "yes" if item.pinned else "no"),
        ("used by", " ".join(item.used_by) or "nothing"),
        ("layers", str(len(made["layers"])) if "layers" in made else ""),
        ("packages", str(len(packages)) if packages else ""),
        *(
            (key, _shown(config.get(key)))
            for key in ("entrypoint", "cmd", "env", "user", "workdir", "ports", "stopSignal")
        ),
    ]
    width = max(len(key) for key, value in pairs if value)
    yield from (f"{key.ljust(width)}  {harmless(str(value))}" for key, value in pairs if value)
    yield from (f"warning: {harmless(str(text))}" for text in made.get("warnings", ()))


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
