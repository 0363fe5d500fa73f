"""Fetches an index of images and kernels from an address or a git repository, and takes it only with a good signature.

The signature is one of OpenSSH's (ssh-keygen(1), `-Y sign`), of the bytes of the index and for the namespace
`banger-catalog`, in a file beside it; who may have made it, the caller says. Index and signature are bounded, and neither is
looked at before it was compared.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.lib.download import fetch as download
from reconciler.lib.errors import BangerError
from reconciler.lib.progress import Progress
from reconciler.lib.run import CommandError, require, run
from reconciler.lib.units import KIB, MIB
from reconciler.model.catalog import CatalogSource

NAMESPACE = "banger-catalog"
SUFFIX = ".sig"
_INDEX_LIMIT = MIB
_SIGNATURE_LIMIT = 64 * KIB
_CLONE_SECONDS = 300.0
_QUICK_SECONDS = 30.0


def fetch(source: CatalogSource, scratch: Path, progress: Progress) -> bytes:
    """The bytes of an index that one of the signers has signed.

    Parameters
    ----------
    scratch: an empty folder; what is left there is the caller's to remove.

    Raises BangerError if it cannot be had, is too large, or is not signed by one of them.
    """
    require("ssh-keygen", "openssh-client")
    index, signature = (_by_git if source.git else _by_url)(source, scratch, progress)
    _verify(source, index, signature, scratch)
    return index


def _by_url(source: CatalogSource, scratch: Path, progress: Progress) -> tuple[bytes, bytes]:
    index, signature = scratch / "index", scratch / "signature"
    download(source.url, index, progress, limit=_INDEX_LIMIT)
    try:
        download(source.url + SUFFIX, signature, progress, limit=_SIGNATURE_LIMIT)
    except BangerError as error:
        raise BangerError(
            f"catalog {source.name} comes without its signature: {error.cause}",
            hint=_how_to_sign(source),
            error_class=error.error_class,
        ) from error
    return index.read_bytes(), signature.read_bytes()


def _by_git(source: CatalogSource, scratch: Path, progress: Progress) -> tuple[bytes, bytes]:
    require("git", "git")
    progress.update(None, f"cloning {source.git}")
    clone = scratch / "clone"
    branch = ["--branch", source.ref] if source.ref else []
    # Bare: nothing of it becomes a file of the host, links included. Nobody is there to be asked for a password.
    # Whatever the environment says of another repository does not count.
    env = {"GIT_TERMINAL_PROMPT": "0", "GIT_DIR": None, "GIT_WORK_TREE": None}
    run(
        ["git", "clone", "--quiet", "--bare", "--depth=1", *branch, "--", source.git, str(clone)],
        env=env,
        timeout=_CLONE_SECONDS,
    )

    def content(path: str, limit: int) -> bytes:
        try:
            size = run(["git", "-C", clone, "cat-file", "-s", f"HEAD:{path}"], env=env, timeout=_QUICK_SECONDS).stdout
        except CommandError:
            what = f"{source.git} has no {path}"
            raise BangerError(what, hint=_how_to_sign(source) if path.endswith(SUFFIX) else None) from None
        if int(size) > limit:
            raise BangerError(f"{path} of {source.git} has {int(size)} bytes, and at most {limit} are taken")
        return run(["git", "-C", clone, "cat-file", "blob", f"HEAD:{path}"], env=env, timeout=_QUICK_SECONDS).stdout

    return content(source.path, _INDEX_LIMIT), content(source.path + SUFFIX, _SIGNATURE_LIMIT)


def _verify(source: CatalogSource, index: bytes, signature: bytes, scratch: Path) -> None:
    allowed, file = scratch / "allowed_signers", scratch / "index.sig"
    allowed.write_text("".join(f"{line}\n" for line in source.signers))
    file.write_bytes(signature)
    keygen = ["ssh-keygen", "-Y"]
    who = run([*keygen, "find-principals", "-s", file, "-f", allowed], check=False, timeout=_QUICK_SECONDS)
    if who.returncode != 0 or not (principals := who.stdout.decode(errors="replace").split("\n")[0]):
        raise BangerError(
            f"catalog {source.name} ({source}) is signed by none of its `signers`",
            hint="look for the reason before you add another signer; what was fetched before stays in use",
        )
    # One principal is enough: which of several names a key has is the same to us.
    principal = principals.split(",")[0]
    words = [*keygen, "verify", "-f", str(allowed), "-I", principal, "-n", NAMESPACE, "-s", str(file)]
    checked = run(words, input=index, check=False, timeout=_QUICK_SECONDS)
    if checked.returncode != 0:
        told = (checked.stderr or checked.stdout).decode(errors="replace").strip().splitlines()
        raise BangerError(
            f"the signature of catalog {source.name} ({source}) is wrong: {told[-1] if told else 'it does not verify'}",
            hint="it may be of an older index, or somebody changed what is there; what was fetched before stays in use",
        )


def _how_to_sign(source: CatalogSource) -> str:
    name = (source.path or source.url).rpartition("/")[2]
    return f"whoever keeps it signs it: ssh-keygen -Y sign -n {NAMESPACE} -f KEY {name}"
