"""What images and kernels are made from. The identity of an artifact is its source's: its name is a label only. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reconciler.model.ids import identity

# Raised when the same inputs would be made into something else, so that old artifacts are not taken for new ones.
IMAGE_RECIPE = 1
KERNEL_RECIPE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianImage:
    """A root file system from a Debian suite; `packages` sorted and unique."""

    tag: ClassVar[str] = "debian"
    suite: str
    packages: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return identity("image", [IMAGE_RECIPE, self.suite, list(self.packages)])

    def __str__(self) -> str:
        return f"Debian {self.suite}" + (f" with {', '.join(self.packages)}" if self.packages else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianKernel:
    """A kernel package of a Debian suite."""

    tag: ClassVar[str] = "debian"
    suite: str
    package: str

    @property
    def id(self) -> str:
        return identity("kernel", [KERNEL_RECIPE, self.suite, self.package])

    def __str__(self) -> str:
        return f"{self.package} from Debian {self.suite}"


# Closed unions: each member has the key of the file as its `tag`, an `id`, and says in words what it is.
ImageSource = DebianImage
KernelSource = DebianKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel of the file."""

    name: str
    source: KernelSource

    @property
    def id(self) -> str:
        return self.source.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the file; `kernel` is the name of the one that boots it, and no part of its identity."""

    name: str
    source: ImageSource
    kernel: str

    @property
    def id(self) -> str:
        return self.source.id
