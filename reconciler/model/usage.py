"""What a VM uses of its host, as measured at one moment. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """A disk of a VM: `allocated` bytes of the host's for the `size` bytes that the guest sees. `name` is `root`, or a volume's."""

    name: str
    allocated: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a VMM uses. It is the guest's use and the VMM's own.

    Parameters
    ----------
    uptime: seconds since it started; also the clock by which two measurements are apart.
    cpu: seconds of one host CPU since then.
    resident: bytes of the host's memory.
    received, sent: bytes that the guest got and sent; None where nobody counts, as in the VMM's own network, or none is.
    """

    uptime: float
    cpu: float
    resident: int
    received: int | None = None
    sent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmUsage:
    """What one VM uses. `cpus` and `memory` (bytes) are what it may use at most; `now` is None while it does not run."""

    environment: str
    name: str
    cpus: int
    memory: int
    disks: tuple[DiskUsage, ...]
    now: Running | None = None

    @property
    def allocated(self) -> int:
        return sum(disk.allocated for disk in self.disks)

    @property
    def size(self) -> int:
        return sum(disk.size for disk in self.disks)

    def cpu_percent(self, before: VmUsage | None) -> float | None:
        """The share of one CPU that it took since an earlier measurement; None without one of the same run."""
        if self.now is None or before is None or before.now is None:
            return None
        seconds = self.now.uptime - before.now.uptime
        used = self.now.cpu - before.now.cpu
        return 100 * used / seconds if seconds > 0 and used >= 0 else None
