"""Which tools a repository wants, in which versions, and which file says so. Reads a few small files, and runs nothing.

What a file says for mise comes first, then files that are about versions and nothing else, then manifests, whose ranges
are taken at their lower end: the oldest version that is promised to work can be named without asking anybody.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIMIT = 256 << 10
_NAME = re.compile(r"[a-z][a-z0-9:@/._-]{0,79}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/:-]{0,79}")
_NUMBER = re.compile(r"v?(\d+(?:\.\d+){0,3})")
_ALIASES = {"nodejs": "node", "golang": "go"}

Said = Iterator[tuple[str, str]]
"""Tool and version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One tool: `version` as mise has it, `said` as the file has it. `instead` of other files that differ."""

    tool: str
    version: str
    file: str
    said: str
    instead: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why this one, in a few words."""
        more = f", before {' and '.join(self.instead)}" if self.instead else ""
        return f"{self.file} says {self.said}{more}"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "tool",
            "name": self.tool,
            "version": self.version,
            "file": self.file,
            "said": self.said,
            "instead": list(self.instead),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """All of them, by name; and the files that could not be understood, with why."""

    wishes: tuple[Wish, ...]
    unread: tuple[tuple[str, str], ...] = ()


def detect(folder: Path) -> Toolchain:
    """What the files at the top of a folder ask for. A file that is no plain file, or is large, is passed over."""
    return judge({name: data for name in READERS if (data := _read(folder / name)) is not None})


def judge(files: Mapping[str, bytes]) -> Toolchain:
    """The same for files by name. Pure."""
    found: dict[str, Wish] = {}
    unread = []
    for name, reader in READERS.items():
        if name not in files:
            continue
        try:
            said = list(reader(files[name].decode("utf-8-sig")))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as problem:
            unread.append((name, f"{problem}".splitlines()[0][:200] or "it cannot be read"))
            continue
        for tool, text in said:
            wish = _wish(tool, text, name)
            if wish is None:
                continue
            first = found.setdefault(wish.tool, wish)
            if first is not wish and first.file != name and first.version != wish.version:
                other = f"{name} ({wish.said})"
                found[wish.tool] = Wish(
                    tool=first.tool,
                    version=first.version,
                    file=first.file,
                    said=first.said,
                    instead=(*first.instead, other),
                )
    return Toolchain(wishes=tuple(found[tool] for tool in sorted(found)), unread=tuple(unread))


def _wish(tool: str, text: str, file: str) -> Wish | None:
    """None for what is no name and no version: it will be part of a command line in the guest."""
    name = _ALIASES.get(tool.lower(), tool.lower())
    said = " ".join(text.split())
    version = lowest(said)
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        return None
    return Wish(tool=name, version=version, file=file, said=said[:80])


def lowest(said: str) -> str:
    """A version or a range as one version: of `>=3.11,<3.13` 3.11, of `^20.1.0` 20.1, of `18 || 20` 20, of `*` latest."""
    text = said.rsplit("||", maxsplit=1)[-1].strip().lower()
    if text in ("", "*", "x", "latest", "node"):
        return "latest"
    if text.startswith("lts"):
        return text.removesuffix("/*")
    match = _NUMBER.search(text)
    if match is None or re.match(r"[a-z]", text.lstrip("v=~^<> ")):
        return text  # `stable`, `temurin-21`
    number = match[1]
    if text.startswith(("^", "~", ">")) or any(sign in text for sign in ",<|x*"):
        return ".".join(number.split(".")[:2])
    return text.lstrip("v=")


def _read(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
            return None
        return os.read(fd, _LIMIT)
    finally:
        os.close(fd)


def _mise(text: str) -> Said:
    for tool, value in tomllib.loads(text).get("tools", {}).items():
        first = value[0] if isinstance(value, list) and value else value
        yield tool, str(first.get("version", "latest") if isinstance(first, dict) else first)


def _tool_versions(text: str) -> Said:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) >= 2:
            yield words[0], words[1]


def _only(tool: str) -> Callable[[str], Said]:
    """A file that holds a version, and nothing else."""

    def read(text: str) -> Said:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        first = next((line for line in lines if line), "")
        if first:
            yield tool, first.removeprefix(f"{tool}-")

    return read


def _rust_toolchain(text: str) -> Said:
    if "[" not in text:
        yield from _only("rust")(text)
        return
    yield "rust", str(tomllib.loads(text)["toolchain"]["channel"])


def _sdkman(text: str) -> Said:
    for line in text.splitlines():
        tool, equals, version = line.partition("=")
        if equals and not tool.startswith("#"):
            yield tool.strip(), version.strip()


def _package_json(text: str) -> Said:
    document = json.loads(text)
    for tool, version in document.get("volta", {}).items():
        if tool in ("node", "npm", "yarn", "pnpm"):
            yield tool, str(version)
    for tool, version in document.get("engines", {}).items():
        if tool in ("node", "pnpm", "yarn", "bun", "deno"):
            yield tool, str(version)
    manager, at, version = str(document.get("packageManager", "")).partition("@")
    if at:
        yield manager, version.partition("+")[0]


def _pyproject(text: str) -> Said:
    document = tomllib.loads(text)
    wanted = document.get("project", {}).get("requires-python")
    poetry = document.get("tool", {}).get("poetry", {}).get("dependencies", {}).get("python")
    if wanted or poetry:
        yield "python", str(wanted or poetry)
    if "uv" in document.get("tool", {}):
        yield "uv", "latest"
    elif poetry or "poetry" in document.get("tool", {}):
        yield "poetry", "latest"


def _go_mod(text: str) -> Said:
    lines = dict(words for line in text.splitlines() if len(words := line.split()) == 2)
    if "toolchain" in lines:
        yield "go", lines["toolchain"].removeprefix("go")
    elif "go" in lines:
        yield "go", lines["go"]


def _cargo(text: str) -> Said:
    document = tomllib.loads(text)
    for part in (document.get("package", {}), document.get("workspace", {}).get("package", {})):
        version = part.get("rust-version")
        if isinstance(version, str):
            yield "rust", version
            return
    yield "rust", "stable"


def _gemfile(text: str) -> Said:
    match = re.search(r"""^\s*ruby\s+["']([^"']+)["']""", text, re.MULTILINE)
    if match:
        yield "ruby", match[1]


def _composer(text: str) -> Said:
    if version := json.loads(text).get("require", {}).get("php"):
        yield "php", str(version)


def _dotnet(text: str) -> Said:
    yield "dotnet", str(json.loads(text)["sdk"]["version"])


READERS: Mapping[str, Callable[[str], Said]] = {
    "mise.local.toml": _mise,
    "mise.toml": _mise,
    ".mise.toml": _mise,
    ".config/mise.toml": _mise,
    ".tool-versions": _tool_versions,
    ".nvmrc": _only("node"),
    ".node-version": _only("node"),
    ".python-version": _only("python"),
    ".ruby-version": _only("ruby"),
    ".go-version": _only("go"),
    ".java-version": _only("java"),
    ".terraform-version": _only("terraform"),
    ".bun-version": _only("bun"),
    ".sdkmanrc": _sdkman,
    "rust-toolchain.toml": _rust_toolchain,
    "rust-toolchain": _rust_toolchain,
    "global.json": _dotnet,
    "package.json": _package_json,
    "pyproject.toml": _pyproject,
    "go.mod": _go_mod,
    "Cargo.toml": _cargo,
    "Gemfile": _gemfile,
    "composer.json": _composer,
}
"""The files that are looked at, the one that counts most first."""
