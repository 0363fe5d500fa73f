"""References to images in registries, in one canonical form (the grammar of the distribution project). Pure."""

from __future__ import annotations

import re

DIGEST = r"sha256:[0-9a-f]{64}"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"(?P<host>\[[0-9a-fA-F:.]+\](?::[0-9]{1,5})?|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(?::[0-9]{1,5})?)"
    rf"/(?P<path>{_PART}(?:/{_PART})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>{DIGEST}))?"
)
_LONGEST_NAME = 255
_DOCKER = "docker.io"


def canonical(text: str) -> str:
    """A reference with its registry, and with the tag that is meant: `docker.io/library/alpine:3.20`.

    A registry is never guessed: what a short name means differs from host to host. ValueError says what would be right.
    """
    if "://" in text:
        raise ValueError(f"write it without {text.partition('://')[0]}://, for example docker.io/library/alpine:3.20")
    first, slash, _ = text.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost"):
        raise ValueError(f"it names no registry; write {_DOCKER}/{'' if slash else 'library/'}{text} if it is there")
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(_wrong(text))
    host, path = match["host"].lower(), match["path"]
    if host in ("index.docker.io", _DOCKER):
        host, path = _DOCKER, path if "/" in path else f"library/{path}"
    if len(host) + 1 + len(path) > _LONGEST_NAME:
        raise ValueError(f"a name has at most {_LONGEST_NAME} characters")
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return f"{host}/{path}" + (f":{tag}" if tag else "") + (f"@{match['digest']}" if match["digest"] else "")


def _wrong(text: str) -> str:
    if "@" in text and not re.search(rf"@{DIGEST}\Z", text):
        return "a digest is `@sha256:` and 64 hexadecimal digits in lower case"
    if text.partition("/")[2].partition(":")[0] != text.partition("/")[2].partition(":")[0].lower():
        return "the name of an image is in lower case"
    return "write registry/name:tag, for example docker.io/library/alpine:3.20"


def pinned_digest(reference: str) -> str:
    """The digest that a canonical reference ends with, or nothing."""
    return reference.partition("@")[2]


def repository(reference: str) -> str:
    """A canonical reference without tag and digest: `docker.io/library/alpine`."""
    name = reference.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


def registry(reference: str) -> str:
    """The host, and port, that it is at."""
    return reference.partition("/")[0]
