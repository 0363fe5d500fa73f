"""`images.NAME.oci` of the file: a reference, or a mapping with what else a registry needs."""

from __future__ import annotations

import os
import posixpath

from reconciler.model.artifacts import OciImage, Pull
from reconciler.model.reference import canonical, pinned_digest
from reconciler.spec import published
from reconciler.spec.defaults import Given, look_up
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document, ScalarNode


def oci_image(document: Document, path: Path) -> OciImage | None:
    """The source at `path`, or None after reporting what is wrong with it."""
    short = isinstance(document.find(path), ScalarNode)
    ref = look_up(document, path if short else (*path, "ref"))
    place = look_up(document, (*path, "path"))
    if not short and ref.written == place.written:
        both = "'path' besides 'ref'" if ref.written else "'ref' or 'path' is missing"
        hint = "keep one of them" if ref.written else "for example `ref: docker.io/library/alpine:3.20`"
        document.report((*path, "path") if ref.written else path, both, hint, key=True)
        return None
    default = published.defaults("ociImage")
    platform = look_up(document, (*path, "platform"), default=default["platform"])
    tls = look_up(document, (*path, "tlsVerify"), default=default["tlsVerify"])
    pull = look_up(document, (*path[:-1], "pull"), default=Pull.MISSING.value)
    reference = _reference(document, ref)
    found = {key: _file(document, look_up(document, (*path, key))) for key in ("path", "authFile", "certDir", "policy")}
    if reference is None or None in found.values() or not (platform.usable and tls.usable and pull.usable):
        return None
    return OciImage(
        ref=reference,
        path=found["path"] or "",
        platform=platform.value,
        pull=Pull(pull.value),
        digest=pinned_digest(reference),
        tls_verify=tls.value,
        auth_file=found["authFile"] or "",
        cert_dir=found["certDir"] or "",
        policy=found["policy"] or "",
    )


def _reference(document: Document, given: Given) -> str | None:
    """Nothing where there is none; None after reporting one that is wrong."""
    if not given.usable:
        return None if given.written else ""
    try:
        return canonical(str(given.value))
    except ValueError as problem:
        document.report(given.path, f"{document.shown(given.path)} is no reference to an image", str(problem))
        return None


def _file(document: Document, given: Given) -> str | None:
    """An absolute path, from the file's folder if it is relative; nothing and None as for a reference."""
    if not given.usable:
        return None if given.written else ""
    text = str(given.value)
    if not text or any(ord(letter) < 32 or letter == ":" for letter in text):
        # skopeo takes what follows a colon for a tag (containers-transports(5)).
        document.report(given.path, f"{document.shown(given.path)} is no path", "write one without colons")
        return None
    folder = os.path.dirname(os.path.abspath(document.file))  # noqa: PTH100, PTH120  # of text: nothing is looked up
    return posixpath.normpath(posixpath.join(folder, os.path.expanduser(text)))  # noqa: PTH111
