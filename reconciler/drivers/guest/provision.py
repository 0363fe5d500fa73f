"""Runs the steps of a guest's provisioning in it, each once for its content, or once in each boot.

What has been done is remembered by the guest, on its own disk: a VM that is restored has it, one that is made anew has
not. A step that is cut off runs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from reconciler.drivers.guest.remote import Remote
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.units import format_duration

_BUSYBOX = "/run/banger/busybox"
_SECONDS = 60.0
_LAST_LINES = 5
_LONGEST_LINE = 300
_SPARE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step. `key` stands for its content, `program` is it, `title` what a user calls it, `timeout` in seconds."""

    key: str
    title: str
    program: bytes
    once: bool
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a step did. `seconds` is how long it took."""

    work: Work
    code: int
    output: str
    seconds: float


def pending(remote: Remote, works: Sequence[Work]) -> list[Work]:
    """Those that the guest has not done, in their order."""
    done = remote.run([_BUSYBOX, "sh", "-c", _script(), "provision", "list"], timeout=_SECONDS)
    if done.returncode != 0:
        raise BangerError("the guest does not tell which steps it has done", error_class=ErrorClass.RETRYABLE)
    known = set(done.stdout.decode("ascii", "replace").split())
    return [work for work in works if work.key not in known]


def run(remote: Remote, work: Work, redact: Callable[[str], str]) -> Report:
    """Runs one step to its end. What it says passes `redact` before anybody sees it. Raises as the remote does."""
    marks = "once" if work.once else "boot"
    command = [_BUSYBOX, "sh", "-c", _script(), "provision", marks, work.key, f"{work.timeout:.0f}"]
    began = time.monotonic()
    done = remote.run(command, input=work.program, timeout=work.timeout + _SPARE_SECONDS)
    output = redact(done.stdout.decode("utf-8", "replace"))
    return Report(work=work, code=done.returncode, output=output, seconds=time.monotonic() - began)


def failure(report: Report, number: int, *, hint: str) -> BangerError:
    """A step that did not end well, with the last that it said."""
    work = report.work
    if report.seconds >= work.timeout:
        how = f"did not end within {format_duration(work.timeout)}"
    else:
        how = f"failed with exit code {report.code}"
    lines = [line.strip()[:_LONGEST_LINE] for line in report.output.splitlines() if line.strip()]
    said = f": {' / '.join(lines[-_LAST_LINES:])}" if lines else ""
    return BangerError(
        f"provision step {number} ({work.title}) {how}{said}", hint=hint, error_class=ErrorClass.RETRYABLE
    )


def _script() -> str:
    return resources.files(__package__).joinpath("provision.sh").read_text(encoding="utf-8")
