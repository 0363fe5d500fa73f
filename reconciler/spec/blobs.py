"""Files and archives from elsewhere: an address or a path, and the hash that says which file it is. Nothing is read here."""

from __future__ import annotations

from pathlib import Path as HostPath
from urllib.parse import urlsplit

from reconciler.model.artifacts import AptSource, Blob
from reconciler.spec import published
from reconciler.spec.defaults import Given, look_up
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document, ListNode


def resolve_blob(document: Document, path: Path) -> Blob | None:
    """What the keys `url` or `file`, and `sha256`, of the mapping at `path` say; None if they were or are reported."""
    url, file, sha256 = (look_up(document, (*path, key)) for key in ("url", "file", "sha256"))
    if not sha256.usable or not (url.usable or file.usable):
        return None
    if file.usable:
        # A file's path is told from where the file that names it lies.
        place = HostPath(document.file).absolute().parent / file.value
        return Blob(url=place.as_uri(), sha256=sha256.value)
    return Blob(url=url.value, sha256=sha256.value) if check_url(document, url) else None


def resolve_sources(document: Document, path: Path) -> tuple[AptSource, ...]:
    """The further archives of packages that are listed there, less those that were or are reported."""
    node = document.find(path)
    entries = range(len(node.items)) if isinstance(node, ListNode) and not node.bad else ()
    return tuple(filter(None, (_source(document, (*path, index)) for index in entries)))


def _source(document: Document, path: Path) -> AptSource | None:
    default = published.defaults("aptSource")["components"]
    uri, suite, key = (look_up(document, (*path, key)) for key in ("uri", "suite", "key"))
    components = look_up(document, (*path, "components"), default=default)
    keyring = (*path, "keyring")
    named = look_up(document, keyring).written
    blob = resolve_blob(document, keyring) if named else None
    if named and key.written:
        document.report(keyring, "'keyring' besides 'key'", "keep one of them", key=True)
    if not (uri.usable and suite.usable and components.usable) or not check_url(document, uri):
        return None
    if suite.value.endswith("/") == bool(components.value):
        hint = "a path has none" if components.value else "for example `components: [main]`"
        document.report((*path, "components"), "components do not fit the suite", hint)
        return None
    if (named and blob is None) or (key.written and not key.usable):
        return None
    return AptSource(uri=uri.value, suite=suite.value, components=tuple(components.value), key=key.value, keyring=blob)


def check_url(document: Document, given: Given) -> bool:
    """Whether an address can be used; if not, that is or was reported."""
    if not given.usable:
        return False
    if problem := _wrong(given.value):
        document.report(given.path, *problem)
    return problem is None


def _wrong(url: str) -> tuple[str, str] | None:
    """What the schema's pattern cannot see: the message and the hint, which do not show what may be a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as problem:
        return f"is not an address: {problem}", "write https://HOST/PATH"
    if not host:
        return "names no host", "write https://HOST/PATH"
    if "@" in parts.netloc:
        return "has a name or a password", "leave it out: it would be shown wherever this address is"
    return None
