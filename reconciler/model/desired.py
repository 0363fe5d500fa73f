"""What the file asks for, after defaults, counts and references are resolved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.model.artifacts import BuiltImage, Image, ImageKernel, Kernel, OciImage
from reconciler.model.retention import CachePolicy
from reconciler.model.vm import Network, Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """How a controller keeps the environment. No VM is told of it.

    Parameters
    ----------
    resync: seconds after which it looks again though nothing happened.
    prune: whether what is not in the file goes to the trash.
    max_delete: how much of the VMs it removes without being told to, from 0 to 1.
    """

    resync: float = 300.0
    prune: bool = True
    max_delete: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """One environment, whole and valid. Mappings are keyed by name and in the file's order."""

    environment: str
    networks: Mapping[str, Network] = field(default_factory=dict)
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    vms: Mapping[str, Vm] = field(default_factory=dict)
    controller: Controller = field(default_factory=Controller)
    cache: CachePolicy | None = None
    """None: nothing is ever pruned by itself."""

    @property
    def unresolved(self) -> frozenset[str]:
        """Identities of the images of which it is not known which ones they are, and of those that are built on them."""
        found = {image.id for image in self.images.values() if image.unresolved}
        while more := {
            image.id
            for image in self.images.values()
            if isinstance(image.source, BuiltImage) and image.source.base in found and image.id not in found
        }:
            found |= more
        return frozenset(found)

    def pinned(self, digests: Mapping[str, str]) -> DesiredState:
        """The same, with images of registries that were not resolved: by name, and what they were found to be."""
        images = dict(self.images)
        for name, image in self.images.items():
            if isinstance(image.source, OciImage) and not image.source.digest and digests.get(name):
                images[name] = replace(image, source=replace(image.source, digest=digests[name]))
        if images == self.images:
            return self
        before: dict[str, str] = {}
        # An image may be built on another one, and that on yet another.
        while (now := {self.images[name].id: image.id for name, image in images.items()}) != before:
            before = now
            for name, image in images.items():
                if isinstance(image.source, BuiltImage):
                    base = self.images[name].source
                    assert isinstance(base, BuiltImage)
                    images[name] = replace(image, source=replace(base, base=now.get(base.base, base.base)))
        kernels = {
            name: replace(kernel, source=ImageKernel(image=now.get(kernel.source.image, kernel.source.image)))
            if isinstance(kernel.source, ImageKernel)
            else kernel
            for name, kernel in self.kernels.items()
        }
        now |= {self.kernels[name].id: kernel.id for name, kernel in kernels.items()}
        vms = {
            name: replace(
                vm,
                image_id=now.get(vm.image_id, vm.image_id),
                image_digest=images[vm.image].digest,
                kernel_id=now.get(vm.kernel_id, vm.kernel_id),
            )
            for name, vm in self.vms.items()
        }
        return replace(self, kernels=kernels, images=images, vms=vms)
