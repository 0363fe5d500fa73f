"""QEMU's microvm as a backend: starting, and ending without losing a write (I12).

QEMU daemonizes, so that a start error comes back as exit code and text, and no child of this process remains:
the VMM lives in a session of its own and outlives banger (I11). PR_SET_PDEATHSIG, which every child of
`lib.run` has, is cleared by that fork (prctl(2)).
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import time
from pathlib import Path

from reconciler.drivers.vmm import cmdline, keeper, live, probe, scope, sockets
from reconciler.drivers.vmm.backend import Accelerator, AcceleratorKind, Boot, Capabilities, Forward, StopOutcome, check
from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.qmp import Qmp, QmpCommandError, QmpError
from reconciler.drivers.vmm.sysrq import emergency_sync
from reconciler.lib import atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Progress
from reconciler.lib.run import CommandError, require
from reconciler.lib.units import MIB

CAPABILITIES = Capabilities(
    # 24 virtio-mmio devices with acpi=on (QEMU: hw/i386/microvm.c), less network card, random numbers, balloon and agent.
    max_disks=20,
    # More needs an x2APIC, which TCG has not.
    max_cpus=255,
    # Below this a distribution kernel and its initramfs do not unpack.
    min_memory=96 * MIB,
    user_network=True,
    tap_network=True,
    accelerators=frozenset(AcceleratorKind),
    # Disks only grow, and memory stays below what the VM was started with (drivers.vmm.live).
    live=frozenset({"memory", "disk", "volumes", "ports", "link"}),
)

_START_SECONDS = 60.0
_SETTLE_SECONDS = 5.0
_SETTLE_EVERY = 0.05
_QMP_SECONDS = 2.0
_POWERDOWN_EVERY = 1.0
_SYNC_SECONDS = 3.0
_QUIT_SECONDS = 3.0
_KILL_SECONDS = 10.0
_LOG_TAIL = 2000

# QEMU's words, what they mean for a retry, and what helps. Looked for in this order.
_START_ERRORS = (
    (
        "Could not set up host forwarding rule",
        ErrorClass.RETRYABLE,
        "a forwarded port is taken: `ss -ltnp` shows by whom",
    ),
    ("Failed to get", ErrorClass.RETRYABLE, "another process has one of the VM's disks open"),
    ("Cannot allocate memory", ErrorClass.RETRYABLE, "the host has too little free memory"),
    ("No space left on device", ErrorClass.RETRYABLE, "a file system is full: `df -h`"),
    (
        "could not configure /dev/net/tun",
        ErrorClass.RETRYABLE,
        "the VM's tap device is missing, in use or another user's",
    ),
)
# What a QEMU says that met another one of the same VM.
_CLASHES = ("Failed to get", "lock pid file")


class Qemu:
    """The `qemu` backend. Stateless: what runs is read from /proc each time.

    consoles: the lock of who keeps console logs small (`keeper`); None lets them grow.
    """

    name = "qemu"
    capabilities = CAPABILITIES

    def __init__(self, consoles: Path | None = None) -> None:
        self._consoles = consoles

    def start(self, boot: Boot, accelerator: Accelerator) -> Vmm:
        """Starts the VM and returns once its sockets listen; if it runs already, returns its VMM.

        Two calls at once, in one process or two, start one VMM. Traces of earlier runs (sockets, pid files) are
        taken over. Raises BangerError.
        """
        check(boot, self.capabilities)
        require(cmdline.PROGRAM, cmdline.PACKAGE)
        try:
            boot.paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic.exclusive(boot.paths.run / "start.lock", what=f"the start of {boot.label}"):
                vmm = self._settled(boot) or self._launch(boot, accelerator)
        except OSError as problem:
            raise BangerError(f"cannot start VM {boot.label}: {problem}") from None
        if self._consoles is not None:
            keeper.ensure(boot.install, self._consoles)
        return vmm

    def stop(self, paths: VmPaths, vmm: Vmm, deadline: float, progress: Progress) -> StopOutcome:
        """Ends the VM: an ACPI power button for `deadline` seconds, then an emergency sync, then a kill.

        Bounded by `deadline` plus 30 seconds whatever guest and QEMU do. Raises BangerError only if the kernel
        itself cannot end the process.
        """
        fd = probe.pidfd(vmm)
        if fd is None:
            return StopOutcome.ALREADY_GONE
        try:
            # A VMM that somebody stopped with a signal can shut its guest down no more than a dead one.
            probe.send(fd, signal.SIGCONT)
            if self._power_down(paths, fd, deadline, progress):
                return StopOutcome.POWERDOWN
            progress.update(None, "the guest does not shut down: syncing its disks")
            synced = emergency_sync(paths, _SYNC_SECONDS)
            if probe.wait(fd, 0):
                # It went by itself meanwhile: a shutdown that was just slower than the deadline.
                return StopOutcome.POWERDOWN
            progress.update(None, "ending QEMU")
            self._quit(paths, fd)
            self._end(vmm, fd)
            return StopOutcome.SYNCED_KILL if synced else StopOutcome.KILLED
        finally:
            os.close(fd)

    def kill(self, vmm: Vmm) -> None:
        """Ends the process at once. A process that is gone already is no error."""
        fd = probe.pidfd(vmm)
        if fd is None:
            return
        try:
            self._end(vmm, fd)
        finally:
            os.close(fd)

    def forward(self, paths: VmPaths, wanted: frozenset[Forward]) -> None:
        """Makes these be the forwards of a running VM. Raises BangerError (live.add_forward)."""
        live.set_forwards(paths, wanted)

    def _running(self, boot: Boot) -> Vmm | None:
        return probe.find(boot.install).get(boot.vm_id)

    def _settled(self, boot: Boot) -> Vmm | None:
        """The VMM that runs this VM, if it is there to stay.

        A launch whose banger was killed in the middle goes on, or ends as soon as it would tell its parent that it is
        ready. While it daemonizes it shows two processes, of which the first may be all that there is to find, and
        ends when the second takes over. So whoever serves QMP is looked up once more, and nobody is gone for good
        before no process has the stamp.
        """
        end = time.monotonic() + _SETTLE_SECONDS
        while (vmm := self._running(boot)) is not None:
            fd = probe.pidfd(vmm)
            if fd is None:
                continue
            try:
                left = end - time.monotonic()
                if left <= 0:
                    # Alive and silent: hung, or busy with another client. It has the VM's disks either way.
                    return vmm
                Qmp(boot.paths.qmp, left).close()
                if self._running(boot) == vmm:
                    return vmm
            except (QmpError, QmpCommandError):
                probe.wait(fd, _SETTLE_EVERY)
            finally:
                os.close(fd)
        return None

    def _launch(self, boot: Boot, accelerator: Accelerator) -> Vmm:
        _require_tap(boot)
        try:
            _run(boot, accelerator)
        except CommandError as problem:
            if not any(words in problem.output for words in _CLASHES):
                raise _explained(boot, accelerator, problem) from None
            # The kernel frees a killed banger's lock a moment before it tells what that banger was starting.
            if (vmm := self._settled(boot)) is not None:
                return vmm
            try:
                _run(boot, accelerator)
            except CommandError as again:
                raise _explained(boot, accelerator, again) from None
        vmm = self._running(boot)
        if vmm is None:
            raise BangerError(
                f"QEMU of VM {boot.label} ended as soon as it had started: {_tail(boot.paths.vmm_log) or 'it says nothing'}",
                hint=f"the guest's last words are in {boot.paths.console_log}",
                replay=_replay(boot, accelerator),
                error_class=ErrorClass.RETRYABLE,
            )
        return vmm

    def _power_down(self, paths: VmPaths, fd: int, seconds: float, progress: Progress) -> bool:
        """Presses the power button until the process is gone: a guest that still boots does not notice it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            progress.update(min(1.0, 1 - left / seconds), "waiting for the guest to shut down")
            try:
                with Qmp(paths.qmp, min(left, _QMP_SECONDS)) as qmp:
                    # A VM that QEMU has paused (a full host disk, -drive werror=enospc) cannot react before it goes on.
                    if not qmp.execute("query-status").get("running", True):
                        qmp.execute("cont")
                    qmp.execute("system_powerdown")
            except (QmpError, QmpCommandError):
                pass  # ending just now, or hung: the next stage finds out
            if probe.wait(fd, min(_POWERDOWN_EVERY, end - time.monotonic())):
                return True
        return probe.wait(fd, 0)

    def _quit(self, paths: VmPaths, fd: int) -> None:
        """Has QEMU write back and close its images, which a signal would not."""
        try:
            with Qmp(paths.qmp, _QMP_SECONDS) as qmp:
                qmp.execute("quit")
        except (QmpError, QmpCommandError):
            return
        probe.wait(fd, _QUIT_SECONDS)

    def _end(self, vmm: Vmm, fd: int) -> None:
        probe.send(fd, signal.SIGKILL)
        if not probe.wait(fd, _KILL_SECONDS):
            raise BangerError(
                f"process {vmm.pid} of VM {vmm.vm_id} survives SIGKILL",
                hint=f"it waits inside the kernel, for a disk or network file system: see /proc/{vmm.pid}/stack",
                error_class=ErrorClass.RETRYABLE,
            )


def _run(boot: Boot, accelerator: Accelerator) -> None:
    """Starts QEMU, and returns when it has daemonized. Raises CommandError and OSError."""
    boot.paths.vmm_log.unlink(missing_ok=True)
    _make_pipes(boot.paths)
    with sockets.folder(boot.paths.run) as run_fd, sockets.folder(boot.paths.root) as root_fd:
        scope.launch(
            cmdline.argv(boot, accelerator, run=sockets.inside(run_fd), root=sockets.inside(root_fd)),
            install=boot.install,
            vm_id=boot.vm_id,
            folder=boot.paths.run,
            timeout=_START_SECONDS,
            pass_fds=(run_fd, root_fd),
        )


def _require_tap(boot: Boot) -> None:
    """QEMU as root would make a missing tap device itself, outside every bridge and every record."""
    tap = boot.nic.tap if boot.nic else None
    if tap is None:
        return
    try:
        socket.if_nametoindex(tap)  # not /sys, which shows the network namespace that it was mounted in
    except OSError:
        raise BangerError(
            f"VM {boot.label} cannot be started: there is no tap device {tap}", error_class=ErrorClass.RETRYABLE
        ) from None


def _make_pipes(paths: VmPaths) -> None:
    """The two ways of the channel to the guest's agent; QEMU opens them, and does not make them. Raises OSError."""
    for path in (paths.agent_in, paths.agent_out):
        # Anew: another name for a pipe of an earlier start would let two VMMs share it.
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)


def _explained(boot: Boot, accelerator: Accelerator, problem: CommandError) -> BangerError:
    said = "\n".join(filter(None, (problem.output.strip(), _tail(boot.paths.vmm_log))))
    found = next(((kind, hint) for words, kind, hint in _START_ERRORS if words in said), None)
    # One that ends without a word was killed.
    kind, hint = found or (problem.error_class if said else ErrorClass.RETRYABLE, None)
    return BangerError(
        f"QEMU cannot start VM {boot.label}: {said or problem.cause}",
        hint=hint,
        replay=_replay(boot, accelerator),
        error_class=kind,
    )


def _replay(boot: Boot, accelerator: Accelerator) -> str:
    """The same start for a shell, where the descriptors that name the folders do not exist."""
    words = cmdline.argv(boot, accelerator, run=".", root=str(boot.paths.root))
    return f"cd {shlex.quote(str(boot.paths.run))} && {shlex.join(words)}"


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip()
    except OSError:
        return ""
