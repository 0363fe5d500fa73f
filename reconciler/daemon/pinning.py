"""Which images the tags of a desired state mean: what is remembered, and where it may be, what their registries say now.

The file says `alpine:3.20`; a plan compares digests. `banger.lock` and digests in the file are part of what is asked for
(`spec`). Everything else goes by the answers that the cache remembers, so that a plan, a status and a controller need no
network. A registry is asked before a plan that a person asked for: of a tag that nobody asked about yet, and of one with
`pull: always`. If it does not answer, the image stays unresolved: its making is planned, which asks again, is repeated,
and says what is wrong; VMs that are made of it stay as they are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from reconciler.drivers.images import oci
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.paths import Paths
from reconciler.model.artifacts import OciImage, Pull
from reconciler.model.desired import DesiredState

_AT_ONCE = 8


def by_memory(paths: Paths, desired: DesiredState) -> DesiredState:
    """Every image as it is remembered. Asks nobody."""
    return desired.pinned({name: oci.known(source, paths) for name, source in _open(desired).items()})


def by_asking(paths: Paths, desired: DesiredState, *, remember: bool) -> DesiredState:
    """Every image as it is remembered, or as its registry says where it is to be asked.

    Parameters
    ----------
    remember: whether answers are kept; else nothing is written.
    """
    known, ask = {}, {}
    for name, source in _open(desired).items():
        known[name] = oci.known(source, paths)
        local = bool(source.path)
        if source.pull is Pull.ALWAYS or (not known[name] and (local or source.pull is Pull.MISSING)):
            ask[name] = source
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = {name: pool.submit(_ask, paths, source, remember) for name, source in ask.items()}
        return desired.pinned({**known, **{name: answer.result() for name, answer in answers.items()}})


def _ask(paths: Paths, source: OciImage, remember: bool) -> str:
    """Nothing if the registry did not answer: the step that makes the image says why."""
    try:
        return oci.found(source, paths).digest if remember else oci.resolve(source)
    except CancelledError:
        raise
    except BangerError:
        return ""


def locked(desired: DesiredState) -> list[OciImage]:
    """What every tag means now, with its digest: asked anew, whatever is remembered or locked. Writes nothing.

    Raises BangerError if one cannot be found out.
    """
    sources = {
        image.source.where: image.source for image in desired.images.values() if isinstance(image.source, OciImage)
    }
    tags = [replace(source, digest="") for source in sources.values() if source.ref and "@" not in source.ref]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(oci.resolve, tags))
    return [replace(source, digest=digest) for source, digest in zip(tags, digests, strict=True)]


def _open(desired: DesiredState) -> dict[str, OciImage]:
    """The images whose digest the file does not say, by name."""
    return {
        name: image.source
        for name, image in desired.images.items()
        if isinstance(image.source, OciImage) and not image.source.digest
    }
