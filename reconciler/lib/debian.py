"""Where this host gets its Debian packages from: its own apt configuration, never a constant.

`apt-get indextargets` (apt-get(8), and `acquire-additional-files` of apt's documentation) lists what apt would
download, and `apt-config dump` (apt-config(8)) how. Every source is pinned to Debian's own archive keys, so
that a wrong guess about a mirror can fail but never mislead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.lib.errors import BangerError
from reconciler.lib.run import require, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_FIELDS = ("REPO_URI", "RELEASE", "COMPONENT", "ORIGIN", "CODENAME", "SUITE")
_FORMAT = "|".join(f"$({field})" for field in _FIELDS)
# What an image of a suite is made from: the suite, its point-release updates, its security fixes.
_SUFFIXES = ("", "-updates", "-security")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy, section 5.6.7
# A moment in the past, as snapshot.debian.org and those like it name it.
_SNAPSHOT = re.compile(r"/[0-9]{8}T[0-9]{6}Z(?:/|$)")
_OPTION = re.compile(r'(Acquire::\S+) "(.*)";')
# How to reach a mirror, and what the host's administrator decided about old snapshots; nothing that weakens signatures.
_FORWARDED = re.compile(
    r"Acquire::(?:[a-z]+::)?(?:Proxy(?:::.*)?|Proxy-Auto-Detect|ProxyAutoDetect|Retries|Timeout|ForceIPv[46]"
    r"|Check-Valid-Until|Check-Date|Max-ValidTime)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Target:
    """One package index that the host's apt follows; `codename` and `archive` are empty before the first update."""

    uri: str
    release: str
    component: str
    origin: str
    codename: str
    archive: str

    @property
    def is_debian(self) -> bool:
        """Whether this comes from Debian's archive, as its Release file says or, if never fetched, as its URI looks."""
        if not self.component or self.uri.startswith("cdrom:"):
            return False
        if self.origin:
            return self.origin == "Debian"
        return urlsplit(self.uri).path.rstrip("/").rpartition("/")[2] in ("debian", "debian-security")

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.release, self.codename, self.archive)) - {""}


@dataclass(frozen=True, slots=True)
class Source:
    """One line of sources.list(5).

    Parameters
    ----------
    keyring: the keys that may sign it.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: Path = KEYRING

    def __str__(self) -> str:
        options = f"signed-by={self.keyring}"
        if _SNAPSHOT.search(self.uri):
            # It is as old as its name says, and its lists are no longer valid at some point.
            options += " check-valid-until=no"
        return f"deb [{options}] {self.uri} {self.suite} {' '.join(self.components)}"


def sources(suite: str, scratch: Path | None = None) -> tuple[Source, ...]:
    """The sources of a suite, after the host's own apt configuration.

    Parameters
    ----------
    scratch: where apt takes signed lists apart, instead of in /tmp, which a host may have closed to its users.

    Raises BangerError if there is no apt, no Debian archive in its configuration, or no Debian keyring.
    """
    require("apt-get", "apt")
    if not KEYRING.is_file():
        raise BangerError(f"{KEYRING} is missing", hint="apt-get install debian-archive-keyring")
    environment = {"TMPDIR": str(scratch)} if scratch else None
    listing = run(["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"], env=environment)
    return select(parse_targets(listing.stdout.decode()), suite)


def parse_targets(listing: str) -> tuple[Target, ...]:
    """Reads the output of `apt-get indextargets`; a field that apt does not know stays as its placeholder."""
    targets = []
    for line in listing.splitlines():
        values = line.split("|")
        if len(values) == len(_FIELDS):
            targets.append(Target(*("" if value.startswith("$(") else value for value in values)))
    return tuple(targets)


def select(targets: Sequence[Target], suite: str) -> tuple[Source, ...]:
    """The sources of `suite` among what the host follows. Pure.

    A suite that the host does not follow is taken from the same archive as the host's own. Its updates and
    security fixes are left out then: whether they exist (sid has none) is only known to those who follow it.
    """
    debian = [target for target in targets if target.is_debian]
    found = []
    for suffix in _SUFFIXES:
        matching = [target for target in debian if suite + suffix in target.names]
        for uri in dict.fromkeys(target.uri for target in matching):
            components = dict.fromkeys(target.component for target in matching if target.uri == uri)
            found.append(Source(uri, suite + suffix, tuple(components)))
    if any(source.suite == suite for source in found):
        return tuple(found)
    base = [target for target in debian if "-" not in target.release and "/" not in target.release]
    if not base:
        raise BangerError(
            "apt on this host has no Debian archive among its sources",
            hint="add one below /etc/apt/sources.list.d (sources.list(5)) and run: apt-get update",
        )
    components = dict.fromkeys(target.component for target in base if target.uri == base[0].uri)
    return (Source(base[0].uri, suite, tuple(components)),)


def apt_options() -> tuple[str, ...]:
    """How this host's apt reaches its mirrors (proxies, timeouts), as lines of apt.conf(5)."""
    return parse_options(run(["apt-config", "dump", "Acquire"]).stdout.decode())


def parse_options(dump: str) -> tuple[str, ...]:
    """The options of `apt-config dump` that belong to reaching a mirror. Pure."""
    options = []
    for line in dump.splitlines():
        match = _OPTION.fullmatch(line.strip())
        if match and match[2] and _FORWARDED.fullmatch(match[1]):
            options.append(f'{match[1]} "{match[2]}";')
    return tuple(options)


def check_names(suite: str, packages: Sequence[str]) -> None:
    """Refuses what cannot be a suite or a package before it can become an option or a pattern of apt."""
    if not _SUITE.fullmatch(suite):
        raise BangerError(f"{suite!r} is not the name of a Debian suite", hint="write a codename, such as bookworm")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise BangerError(
                f"{package!r} is not the name of a Debian package",
                hint="names have at least two of a-z 0-9 + - . (Debian policy, section 5.6.7)",
            )
