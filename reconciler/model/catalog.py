"""Where an index of images and kernels lies, and who signs it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.model.ids import identity

BUILT_IN = "banger"
"""The name of the catalog that comes along; what names no catalog is one of its entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSource:
    """One of `catalogs` of a file.

    Parameters
    ----------
    file: an absolute path of this host, or nothing.
    url: an address, or nothing.
    git: the address of a repository that has it at `path` of `ref`, or of its HEAD; or nothing.
    signers: lines of allowed_signers (ssh-keygen(1)); of a file, none.
    """

    name: str
    file: str = ""
    url: str = ""
    git: str = ""
    ref: str = ""
    path: str = ""
    signers: tuple[str, ...] = ()

    @property
    def fetched(self) -> bool:
        """Whether it comes from elsewhere: then it is signed, and what is kept of it is read."""
        return not self.file

    @property
    def key(self) -> str:
        """What a fetched one is kept under: another place or other signers are another index."""
        return identity("catalog", [self.url, self.git, self.ref, self.path, list(self.signers)])

    def __str__(self) -> str:
        if not self.git:
            return self.file or self.url
        return f"{self.path} of {self.git}" + (f" at {self.ref}" if self.ref else "")
