"""What this host lacks, found without changing it. Each check has a name, a status and a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reconciler.doctor.check import Check, Status
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths

__all__ = ["Check", "Status", "examine", "install_hint"]


def examine(paths: Paths) -> tuple[Check, ...]:
    """Every check, in the order in which one would mend things. Creates nothing below `paths`; raises nothing."""
    from reconciler.doctor import network, qemu, storage, tools, user  # noqa: PLC0415  # drivers are heavy

    probes: Sequence[Callable[[], Iterable[Check]]] = (
        tools.python,
        tools.programs,
        tools.busybox,
        tools.debian_archive,
        qemu.binary,
        lambda: qemu.accelerators(paths),
        user.namespaces,
        user.sandboxes,
        user.subordinate_ids,
        network.tun,
        network.helper,
        network.packet_filter,
        lambda: storage.folders(paths),
        lambda: storage.space(paths),
    )
    return tuple(check for probe in probes for check in _safely(probe))


def _safely(probe: Callable[[], Iterable[Check]]) -> list[Check]:
    """A probe that itself breaks is a finding, not the end of the examination."""
    name = getattr(probe, "__name__", "check").replace("_", "-")
    try:
        return list(probe())
    except (BangerError, OSError) as problem:
        return [Check(name=name, status=Status.WARN, detail=f"could not be checked: {problem}")]


def install_hint(checks: Iterable[Check]) -> str | None:
    """One command that installs all Debian packages which the checks miss, or None."""
    packages = sorted({package for check in checks if check.status is not Status.OK for package in check.packages})
    return f"apt-get install {' '.join(packages)}" if packages else None
