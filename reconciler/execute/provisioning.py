"""Provisioning: the work that a file asks to be done in a guest, what it said, and that it was done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from reconciler.drivers.guest import provision, secrets, sources
from reconciler.drivers.guest.provision import Report, Work
from reconciler.execute.inside import enter, note
from reconciler.execute.tools import Tools
from reconciler.lib import atomic
from reconciler.lib.progress import Progress
from reconciler.model.actions import ProvisionVm
from reconciler.model.inside import provision_fact, step_keys
from reconciler.model.vm import Vm

_LOG_BYTES = 1 << 20
_SHORTEST_SECRET = 4
"""Characters: to blot out shorter ones would blot out ordinary text."""
_TITLE = 60


def provision_vm(action: ProvisionVm, tools: Tools, progress: Progress) -> None:
    """Has the guest do each step that it has not done, in order; the first that fails is the error.

    A guest that has ended meanwhile does its work after its next start.
    """
    guest = enter(action.name, action.timeout, tools, progress)
    if guest is None:
        return
    works, fact = _works(action.vm)
    redact = _redaction(action.vm)
    log = tools.paths.vm(tools.environment, action.name).provision_log
    todo = provision.pending(guest, works)
    for number, work in enumerate(works, 1):
        if work not in todo:
            continue
        progress.update(None, f"step {number} of {len(works)}: {work.title}")
        report = provision.run(guest, work, redact)
        _keep(log, number, report, tools.clock.now())
        if report.code != 0:
            raise provision.failure(
                report, number, hint=f"banger logs {action.name} --provision shows all that it said"
            )
    note(action.name, {"provision": fact}, tools)


def _works(vm: Vm) -> tuple[list[Work], str]:
    programs = {step.script: sources.program(step.script) for step in vm.provision if step.script is not None}
    digests = {path: digest for path, (_, digest) in programs.items()}
    works = [
        Work(
            key=key,
            title=(step.run or Path(step.script or "").name).strip().partition("\n")[0][:_TITLE],
            program=programs[step.script][0] if step.script is not None else (step.run or "").encode(),
            once=step.once,
            timeout=step.timeout,
        )
        for key, step in zip(step_keys(vm.provision, digests), vm.provision, strict=True)
    ]
    return works, provision_fact(vm.provision, digests)


def _redaction(vm: Vm) -> Callable[[str], str]:
    """What blots out the values of a VM's secrets, and each of their lines: a shell may be told to show what it does."""
    values: set[str] = set()
    for secret in vm.secrets:
        text = secrets.read(secret).decode("utf-8", "replace")
        values.update(part.strip() for part in (text, *text.splitlines()) if len(part.strip()) >= _SHORTEST_SECRET)

    def redact(text: str) -> str:
        for value in sorted(values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    return redact


def _keep(log: Path, number: int, report: Report, now: float) -> None:
    """Adds to the log, of which the last MiB counts."""
    when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    how = "done" if report.code == 0 else f"exit code {report.code}"
    head = f"-- step {number}: {report.work.title} -- {when}, {how} after {report.seconds:.1f} s --\n"
    before = log.read_bytes() if log.exists() else b""
    text = before + head.encode() + report.output.encode()
    text += b"" if text.endswith(b"\n") else b"\n"
    atomic.write_atomic(log, text[-_LOG_BYTES:], mode=0o600)
