"""What images and kernels are made from. The identity of an artifact is its source's: its name is a label only. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from reconciler.model.ids import identity

# Raised when the same inputs would be made into something else, so that old artifacts are not taken for new ones.
IMAGE_RECIPE = 1
KERNEL_RECIPE = 1
TOOLS_RECIPE = 1
OCI_RECIPE = 1

DEFAULT_PLATFORM = "linux/amd64"


class Pull(StrEnum):
    """When a registry is asked what a tag means."""

    MISSING = "missing"
    """Once: what it meant then is remembered."""
    ALWAYS = "always"
    """At each apply and plan."""
    NEVER = "never"
    """Not at all: the answer is remembered or locked, and the image, or its blobs, are cached."""


FROM_IMAGE = "from-image"
"""In place of a kernel's name: the one that the image itself has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file from elsewhere: `url` says where it is now (`https`, `http` or `file`), `sha256` which one it is."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AptSource:
    """A further archive of packages (sources.list(5)).

    Parameters
    ----------
    key: the text of the key that signs it (`gpg --armor --export`).
    keyring: a file that has the key. Without either it is signed by Debian's own.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    key: str | None = None
    keyring: Blob | None = None

    @property
    def inputs(self) -> list[object]:
        """What of it counts for an identity: where a keyring lies does not."""
        return [self.uri, self.suite, list(self.components), self.key, self.keyring.sha256 if self.keyring else None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianImage:
    """A root file system from a Debian suite; `packages` sorted and unique.

    Parameters
    ----------
    mirror: the archive that the suite comes from, instead of the host's.
    sources: further ones, in their order.
    run: scripts for its shell, after everything was installed.
    """

    tag: ClassVar[str] = "debian"
    suite: str
    packages: tuple[str, ...] = ()
    mirror: str | None = None
    sources: tuple[AptSource, ...] = ()
    run: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        more: list[object] = []
        if self.mirror or self.sources or self.run:
            more = [self.mirror, [source.inputs for source in self.sources], list(self.run)]
        return identity("image", [IMAGE_RECIPE, self.suite, list(self.packages), *more])

    def __str__(self) -> str:
        words = f"Debian {self.suite}" + (f" with {', '.join(self.packages)}" if self.packages else "")
        words += f" from {self.mirror}" if self.mirror else ""
        words += f" and {len(self.sources)} further source(s)" if self.sources else ""
        return words + (f", then {len(self.run)} script(s)" if self.run else "")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OciImage:
    """A container image, from a registry or from the disk (the OCI image and distribution specifications).

    Parameters
    ----------
    ref: a canonical reference (`model.reference`), or nothing if it is on disk.
    path: the absolute path of an OCI layout (a folder) or of an archive, or nothing.
    platform: which image of an index; `os/architecture`, or with `/variant`.
    digest: that of the manifest or index that is meant, `sha256:…`; nothing while nobody has asked.
    auth_file, cert_dir, policy: absolute paths, or nothing for what the host's containers tools use.
    """

    tag: ClassVar[str] = "oci"
    ref: str = ""
    path: str = ""
    platform: str = DEFAULT_PLATFORM
    pull: Pull = Pull.MISSING
    digest: str = ""
    tls_verify: bool = True
    auth_file: str = ""
    cert_dir: str = ""
    policy: str = ""

    @property
    def id(self) -> str:
        """By content: wherever it is pulled from, and by whatever name. Before its digest is known, it is no image's."""
        return identity("image", ["oci", OCI_RECIPE, self.digest or self.where, self.platform])

    @property
    def where(self) -> str:
        return self.ref or self.path

    def __str__(self) -> str:
        digest = f" ({short_digest(self.digest)})" if self.digest and self.digest not in self.ref else ""
        return self.where + digest + (f" for {self.platform}" if self.platform != DEFAULT_PLATFORM else "")


def short_digest(digest: str) -> str:
    """Enough of a digest to tell it from others by eye: `sha256:` and 12 digits."""
    return digest[:19]


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlKernel:
    """An ELF or a bzImage, and an archive of its modules if it has any. Where the bytes lie is no part of its identity."""

    tag: ClassVar[str] = "url"
    url: str
    sha256: str
    modules: Blob | None = None

    @property
    def id(self) -> str:
        modules = self.modules.sha256 if self.modules else None
        return identity("kernel", [KERNEL_RECIPE, "url", self.sha256, modules])

    def __str__(self) -> str:
        return self.url.removeprefix("file://")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageKernel:
    """The kernel that an image has in its /boot; `image` is that one's identity."""

    tag: ClassVar[str] = "image"
    image: str

    @property
    def id(self) -> str:
        return identity("kernel", [KERNEL_RECIPE, "image", self.image])

    def __str__(self) -> str:
        return f"the one inside of image {self.image}"


class ImageFormat(StrEnum):
    """What a file has that becomes an image."""

    AUTO = "auto"
    """Whatever its first bytes say."""
    SQUASHFS = "squashfs"
    TAR = "tar"
    RAW = "raw"
    """A file system, or a disk with partitions."""
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlImage:
    """A file that has a root file system. Where it lies is no part of its identity."""

    tag: ClassVar[str] = "url"
    url: str
    sha256: str
    format: ImageFormat = ImageFormat.AUTO

    @property
    def id(self) -> str:
        return identity("image", [IMAGE_RECIPE, "url", self.sha256, self.format.value])

    def __str__(self) -> str:
        return self.url.removeprefix("file://")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """A script for the image's own shell."""

    tag: ClassVar[str] = "run"
    script: str

    @property
    def inputs(self) -> list[object]:
        return [self.tag, self.script]

    def __str__(self) -> str:
        return f"run {self.script.strip().splitlines()[0][:60]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyStep:
    """A file for the image: its text, or one from elsewhere. `mode` as chmod(1) has it, in octal."""

    tag: ClassVar[str] = "copy"
    to: str
    mode: str = "0644"
    content: str | None = None
    blob: Blob | None = None

    @property
    def inputs(self) -> list[object]:
        return [self.tag, self.to, self.mode, self.content, self.blob.sha256 if self.blob else None]

    def __str__(self) -> str:
        return f"copy to {self.to}"


BuildStep = RunStep | CopyStep


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """Another image, by its identity, and what is done to it in a guest."""

    tag: ClassVar[str] = "from"
    base: str
    steps: tuple[BuildStep, ...] = ()

    @property
    def id(self) -> str:
        return identity("image", [IMAGE_RECIPE, "from", self.base, [step.inputs for step in self.steps]])

    def __str__(self) -> str:
        return f"image {self.base} and {len(self.steps)} step(s)"


# Closed unions: each member has the key of the file as its `tag`, an `id`, and says in words what it is.
ImageSource = DebianImage | OciImage | UrlImage | BuiltImage
KernelSource = DebianKernel | UrlKernel | ImageKernel


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

    @property
    def digest(self) -> str:
        """Of the manifest that an image of a registry is; of others, and before it is known, nothing."""
        return self.source.digest if isinstance(self.source, OciImage) else ""

    @property
    def unresolved(self) -> bool:
        """Whether it is not known yet which image is meant."""
        return isinstance(self.source, OciImage) and not self.source.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTools:
    """The disk of programs that every guest finds beside its image, whatever that has: one for all VMs of a banger."""

    suite: str = "bookworm"
    packages: tuple[str, ...] = (
        "busybox-static",
        "coreutils",
        "dropbear-bin",
        "openssh-sftp-server",
        "qemu-guest-agent",
        "usr-is-merged",  # chosen, else apt takes its alternative, which needs Perl
        "util-linux",
    )

    @property
    def id(self) -> str:
        return identity("tools", [TOOLS_RECIPE, self.suite, list(self.packages)])

    def __str__(self) -> str:
        return f"{', '.join(self.packages)} from Debian {self.suite}"


GUEST_TOOLS = GuestTools()
"""What this banger gives to the VMs that it starts. Running ones keep what they were started with."""
