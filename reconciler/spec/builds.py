"""Images that are built on others of the file: what they stand on, and the steps."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.artifacts import BuildStep, BuiltImage, CopyStep, Image, RunStep
from reconciler.spec import published
from reconciler.spec.blobs import resolve_blob
from reconciler.spec.defaults import look_up, names_of
from reconciler.spec.problems import Path, did_you_mean, quote
from reconciler.spec.tree import Document, ListNode


def resolve_built(document: Document, kernels: Mapping[str, str], others: Mapping[str, Image]) -> dict[str, Image]:
    """The built images of which all is known.

    Parameters
    ----------
    kernels: for each built image the name of its kernel, empty if that was reported.
    others: the images that are not built on another.
    """
    bases = {name: _base(document, name) for name in kernels}
    found: dict[str, Image] = {}
    waiting = {name: base for name, base in bases.items() if base}
    while waiting:
        ready = [name for name, base in waiting.items() if base not in waiting]
        if not ready:
            first = min(waiting)
            message = f"is built on itself: {' -> '.join(_circle(first, waiting))}"
            document.report(("images", first, "from"), message, "one of them has to come from somewhere else")
            break
        for name in ready:
            base = others.get(waiting[name]) or found.get(waiting[name])
            del waiting[name]
            steps = _steps(document, ("images", name, "steps"))
            if base is not None and kernels[name]:
                found[name] = Image(name=name, source=BuiltImage(base=base.id, steps=steps), kernel=kernels[name])
    return found


def _base(document: Document, name: str) -> str:
    """The name of what it is built on; empty if there is no such image."""
    given = look_up(document, ("images", name, "from"))
    known = names_of(document, "images")
    if given.usable and given.value not in known:
        document.report(
            given.path, f"there is no image {quote(given.value)}", did_you_mean(given.value, known) or "declare it"
        )
    return given.value if given.usable and given.value in known else ""


def _circle(first: str, waiting: Mapping[str, str]) -> list[str]:
    way = [first]
    while (after := waiting[way[-1]]) not in way:
        way.append(after)
    return [*way[way.index(after) :], after]


def _steps(document: Document, path: Path) -> tuple[BuildStep, ...]:
    node = document.find(path)
    entries = range(len(node.items)) if isinstance(node, ListNode) and not node.bad else ()
    return tuple(filter(None, (_step(document, (*path, index)) for index in entries)))


def _step(document: Document, path: Path) -> BuildStep | None:
    script = look_up(document, (*path, "run"))
    if script.usable:
        return RunStep(script=script.value)
    copy = (*path, "copy")
    to, content = look_up(document, (*copy, "to")), look_up(document, (*copy, "content"))
    mode = look_up(document, (*copy, "mode"), default=published.defaults("copy")["mode"])
    if not (to.usable and mode.usable):
        return None
    if content.usable:
        return CopyStep(to=to.value, mode=mode.value, content=content.value)
    blob = resolve_blob(document, copy)
    return CopyStep(to=to.value, mode=mode.value, blob=blob) if blob else None
