"""mmdebstrap(1) in a box that dies with us.

The box is a PID and a mount namespace (pid_namespaces(7), mount_namespaces(7)) made by unshare(1): when banger
is killed, even by `kill -9`, so is `unshare`, then the first process of the namespace, then by the kernel all
the others, and with the last of them go the mounts. Only plain files in the scratch folder can stay.
A normal user gets a user namespace around it, with the user's subordinate ids (subuid(5)) for the owners of files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reconciler.lib import debian
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.progress import Progress
from reconciler.lib.run import CommandError, Completed, pipeline, require, run

# All files younger than this get this time, so that the same packages make the same bytes
# (https://reproducible-builds.org/docs/source-date-epoch/). Not 0: shadow(5) would take a password that was last
# changed on day 0 for one that has to be changed now. 2024-01-01T00:00:00Z.
SOURCE_DATE_EPOCH = 1704067200

_BOX = ("--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc")
_USER = ("--user", "--map-root-user", "--map-auto")

# Asks apt, before hundreds of packages are fetched, whether it can install what is wanted: a misspelt name fails
# after a second instead of at the end. $1 is the root, and mmdebstrap tells the place of its apt.conf; in the
# root is the one folder for temporary files that apt's user is sure to be able to write.
_PRECHECK = (
    'export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" TMPDIR="$1/tmp"; '
    "apt-get update -qq --error-on=any >&2 && apt-get install -qq --simulate {packages} >/dev/null"
)

# mmdebstrap's own announcements, in their order, and how much of the time has passed then.
_STAGES = (
    ("running apt-get update", 0.02, "reading package lists"),
    ("downloading packages", 0.10, "downloading packages"),
    ("extracting archives", 0.20, "unpacking packages"),
    ("installing essential", 0.30, "installing essential packages"),
    ("installing remaining", 0.45, "installing packages"),
    ("running --extract-hook", 0.60, "copying out"),
    ("running --customize-hook", 0.80, "adapting the system"),
    ("cleaning package lists", 0.85, "cleaning up"),
    ("creating tarball", 0.88, "packing"),
)

_UNREACHABLE = (
    "could not connect",
    "could not resolve",
    "temporary failure",
    "connection failed",
    "connection timed out",
    "network is unreachable",
    "unable to connect",
    "hash sum mismatch",
    "500  ",
    "502  ",
    "503  ",
    "504  ",
    "unexpected size",
    "mirror sync in progress",
)


class Variant(StrEnum):
    """Of mmdebstrap(1): how much is done with the packages."""

    MINBASE = "minbase"
    """They are installed in a system of the required packages and apt."""
    EXTRACT = "extract"
    """They and what they need are unpacked, and no more."""

    @property
    def last_hook(self) -> str:
        """Of the stages that this variant has, the last one where hooks run."""
        return "extract-hook" if self is Variant.EXTRACT else "customize-hook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What mmdebstrap is asked for.

    Parameters
    ----------
    hooks: shell commands that run at the end, outside of the new root, which is their `$1`.
    sources: where the packages come from; by default what the host's own apt has for the suite.
    more: sources besides.
    """

    suite: str
    packages: tuple[str, ...]
    variant: Variant
    hooks: tuple[str, ...] = field(default=())
    sources: tuple[debian.Source, ...] = field(default=())
    more: tuple[debian.Source, ...] = field(default=())


def bootstrap(
    wanted: Bootstrap, scratch: Path, progress: Progress, *, into: Sequence[Sequence[str | Path]] | None = None
) -> None:
    """Runs mmdebstrap to its end.

    Parameters
    ----------
    scratch: a folder that holds everything that is ever written, except by the hooks and `into`.
    into: commands that get the system as a tar stream, one feeding the next; None if only the hooks count.

    Raises BangerError: retryable if the mirror did not answer, else terminal, with apt's own words.
    """
    debian.check_names(wanted.suite, wanted.packages)
    for program, package in (("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("gpgv", "gpgv")):
        require(program, package)
    sources = (*(wanted.sources or debian.sources(wanted.suite, scratch)), *wanted.more)
    argv = [*sandbox(), *_mmdebstrap(wanted, sources, with_tar=into is not None)]
    lines: list[str] = []
    steps: list[tuple[float, str]] = []

    def listen(line: str) -> None:
        lines.append(line)
        if (step := _step(line)) and step not in steps:
            steps.append(step)
            progress.update(*step)

    try:
        # SOURCE_DATE_EPOCH is for sqfstar(1), too. TMPDIR is where mmdebstrap builds.
        environment = {"TMPDIR": str(scratch), "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}
        pipeline([argv, *(into or ())], env=environment, on_line=listen)
    except CommandError as problem:
        raise explain(
            lines, wanted.suite, sources, replay=f"{shlex.join(argv)} >/dev/null", ends=problem.failed
        ) from problem


def sandbox() -> tuple[str, ...]:
    """The command prefix that makes the box. Raises BangerError if this user cannot have one."""
    if os.geteuid() == 0:
        return ("unshare", *_BOX)
    prefix = ("unshare", *_USER, *_BOX)
    require("newuidmap", "uidmap")
    # Asked by trying: kernels, security modules and containers each have a switch of their own.
    try:
        run([*prefix, "true"])
    except CommandError as problem:
        raise BangerError(
            f"this user cannot make a user namespace with subordinate ids: {problem.output.strip() or problem.cause}",
            hint=_namespace_hint(),
            replay=problem.replay,
        ) from problem
    return prefix


def explain(
    lines: Sequence[str],
    suite: str,
    sources: Sequence[debian.Source],
    *,
    replay: str,
    ends: Sequence[Completed] = (),
) -> BangerError:
    """The error that the output of a failed run tells of. Pure.

    Parameters
    ----------
    lines: what mmdebstrap, apt, dpkg and those after them wrote to stderr.
    ends: how each of them ended that failed.
    """
    lines = [line for line in lines if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    text = "\n".join(lines).lower()
    cause = next((line for line in errors if " failed" not in line), errors[0] if errors else "mmdebstrap failed")
    hint: str | None = None
    error_class = ErrorClass.TERMINAL
    if "no space left on device" in text:
        cause, hint = "no space left on the disk of the cache", "banger cache plan shows what could go"
    elif missing := [line for line in errors if line.startswith(("Unable to locate package", "Couldn't find any"))]:
        names = sorted({line.rpartition(" ")[2].strip("'") for line in missing})
        cause = f"Debian {suite} has no package {', '.join(names)}"
        hint = f"look for the name at https://packages.debian.org/{suite}/"
    elif any("has no installation candidate" in line for line in errors):
        cause = next(line for line in errors if "has no installation candidate" in line)
        hint = f"look for the name at https://packages.debian.org/{suite}/"
    elif "no_pubkey" in text or "signatures" in text:
        cause = next((line for line in lines if "NO_PUBKEY" in line or "signatures" in line), cause).strip()
        hint = f"apt-get install debian-archive-keyring: {debian.KEYRING} does not have the key of {suite}"
    elif "is not valid yet" in text or "is expired" in text:
        hint = "compare the clock of this host: date"
    elif any(sign in text for sign in _UNREACHABLE):
        cause = next((line for line in errors if "Failed to fetch" in line), cause)
        hint, error_class = "the host's own `apt-get update` shows whether the mirror answers", ErrorClass.RETRYABLE
    elif "does not have a release file" in text:
        cause = f"the archive of this host has no suite {suite}"
        hint = f"sources used: {'; '.join(str(source) for source in sources)}"
    elif "unmet dependencies" in text or "held broken packages" in text:
        reasons = [line.strip() for line in lines if " : Depends:" in line or " : Conflicts:" in line]
        cause = "these packages cannot be installed together" + (f": {reasons[0]}" if reasons else "")
        hint = "leave one of them out"
    elif "broken pipe" in text and len(ends) > 1:
        # mmdebstrap packed, and nobody read: what counts is why.
        reader = ends[-1]
        said = reader.stderr.decode("utf-8", "replace").strip().splitlines()
        cause = f"packing {reader.how}{f': {said[-1]}' if said else ''}"
        # One that was killed (for want of memory, say) gave no reason why it should not work the next time. A shell
        # tells of the signal by a code of 128 and more (sh(1)).
        error_class = ErrorClass.TERMINAL if 0 < reader.returncode < 128 else ErrorClass.RETRYABLE
    elif not errors and lines:
        # Whoever fails without an error's mark fails in a warning, or is not mmdebstrap; after it comes what was torn down.
        told = [line for line in lines if not line.startswith("I: ")] or lines
        cause = told[-1].removeprefix("W: ").strip()
    return BangerError(" ".join(cause.split()), hint=hint, replay=replay, error_class=error_class)


def _mmdebstrap(wanted: Bootstrap, sources: Sequence[debian.Source], *, with_tar: bool) -> list[str]:
    options = [
        *debian.apt_options(),
        # Else apt takes an unknown name with a dot in it for a regular expression, and installs whatever matches.
        'APT::Cmd::Pattern-Only "true";',
    ]
    packages = ",".join(wanted.packages)
    precheck = _PRECHECK.format(packages=shlex.join(wanted.packages))
    return [
        "mmdebstrap",
        "--mode=root",
        f"--variant={wanted.variant}",
        f"--format={'tar' if with_tar else 'null'}",
        f"--include={packages}",
        *(f"--aptopt={option}" for option in options),
        f"--setup-hook={precheck}",
        *(f"--{wanted.variant.last_hook}={hook}" for hook in wanted.hooks),
        wanted.suite,
        "-",
        *(str(source) for source in sources),
    ]


def _step(line: str) -> tuple[float, str] | None:
    if not line.startswith("I: "):
        return None
    for start, fraction, message in _STAGES:
        if line.startswith(f"I: {start}"):
            return fraction, message
    return None


def _namespace_hint() -> str:
    for switch in ("kernel/unprivileged_userns_clone", "user/max_user_namespaces"):
        path = Path("/proc/sys") / switch
        if path.is_file() and path.read_text().strip() == "0":
            return f"as root: sysctl {switch.replace('/', '.')}={1 if 'clone' in switch else 10000}"
    return "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER (subuid(5)), or run as root"
