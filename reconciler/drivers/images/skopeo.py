"""Images of registries and of the disk, by skopeo(1): the one way to them, as the host's containers tools have it.

Who one is (containers-auth.json(5)), mirrors and blocked registries (containers-registries.conf(5)), certificates
(containers-certs.d(5)) and which signatures are asked for (containers-policy.json(5)) is skopeo's business, and so is that
every blob has its digest. Here is what it does not do: it waits for a silent registry for ever, says little while it
works, and its errors are those of a library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.run import CommandError, Completed, require, run
from reconciler.model.artifacts import OciImage
from reconciler.model.reference import registry, repository

_ANSWER_SECONDS = 45.0
_DISK_SECONDS = 600.0
_MESSAGE = re.compile(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"')
_TEMPORARY = re.compile(
    r"toomanyrequests|too many requests|\b(?:429|500|502|503|504)\b|timeout|timed out|connection re(?:fused|set)|EOF"
    r"|no such host|server misbehaving|network is unreachable|no route to host|Digest did not match|broken pipe"
    r"|temporary failure|size mismatch",
    re.IGNORECASE,
)


def raw_manifest(source: OciImage, digest: str = "") -> bytes:
    """The manifest or index, byte for byte, that a source has, or that has the given digest in its repository.

    Raises BangerError: retryable if asking again may help.
    """
    return _run(source, ["inspect", "--raw", *_access(source), locate(source, digest)]).stdout


def raw_configuration(source: OciImage, digest: str) -> bytes:
    """The configuration of the image with that manifest, byte for byte. Raises BangerError likewise."""
    return _run(source, ["inspect", "--raw", "--config", *_access(source), locate(source, digest)]).stdout


def copy(source: OciImage, digest: str, layout: Path, blobs: Path, watch: Callable[[], None]) -> None:
    """Fetches the blobs of an image that are not there yet, each verified, into `blobs/sha256`.

    Parameters
    ----------
    digest: of the image's manifest, in its repository.
    layout: a folder for skopeo's own use, which holds what has not arrived yet.
    watch: called while it works; what it raises ends it.

    Raises BangerError: retryable if asking again may help.
    """
    system, architecture, *variant = source.platform.split("/")
    chosen = ["--override-os", system, "--override-arch", architecture]
    chosen += ["--override-variant", variant[0]] if variant else []
    # As they come: it would compress plain layers, and so change their digests.
    shared = ["--dest-shared-blob-dir", str(blobs), "--dest-oci-accept-uncompressed-layers"]
    words = [
        *chosen,
        "copy",
        "--quiet",
        *_access(source, "src-"),
        *shared,
        locate(source, digest),
        f"oci:{layout}:image",
    ]
    _run(source, words, tmpdir=layout.parent, watch=watch)


def locate(source: OciImage, digest: str = "") -> str:
    """What containers-transports(5) calls it."""
    if source.ref:
        # skopeo takes a tag or a digest, not both.
        return f"docker://{repository(source.ref)}@{digest}" if digest else f"docker://{source.ref}"
    path = Path(source.path)
    if path.is_dir():
        return f"oci:{path}"
    names = set(_members(path))
    archive = "oci-archive" if "index.json" in names and "manifest.json" not in names else "docker-archive"
    return f"{archive}:{path}"


def _members(path: Path) -> Iterator[str]:
    """The names at the top of a plain tar, read from its headers alone; of anything else, none."""
    try:
        with path.open("rb") as file:
            for _ in range(10_000):
                header = file.read(512)
                if len(header) < 512 or header[257:262] != b"ustar":
                    return
                yield header[:100].rstrip(b"\0").decode("utf-8", "replace").removeprefix("./")
                size = int(header[124:135].strip(b"\0 ") or b"0", 8)
                file.seek(-(-size // 512) * 512, 1)
    except (OSError, ValueError):
        return


def _access(source: OciImage, prefix: str = "") -> list[str]:
    words = [] if source.tls_verify else [f"--{prefix}tls-verify=false"]
    words += [f"--{prefix}authfile", source.auth_file] if source.auth_file else []
    return words + ([f"--{prefix}cert-dir", source.cert_dir] if source.cert_dir else [])


def _run(
    source: OciImage, words: list[str], *, tmpdir: Path | None = None, watch: Callable[[], None] | None = None
) -> Completed:
    require("skopeo", "skopeo")
    if source.path and not Path(source.path).exists():
        raise BangerError(f"{source.path} does not exist", hint="make it, or correct `path` in the file")
    argv = ["skopeo", *(["--policy", source.policy] if source.policy else [])]
    argv += ["--tmpdir", str(tmpdir)] if tmpdir else []
    seconds = None if watch else _ANSWER_SECONDS if source.ref else _DISK_SECONDS
    try:
        return run([*argv, *words], timeout=seconds, watch=watch)
    except CommandError as problem:
        raise _explained(source, problem) from problem


def _explained(source: OciImage, problem: CommandError) -> BangerError:
    """A failure of skopeo in words of the file."""
    said = [m.replace('\\"', '"') for m in _MESSAGE.findall(problem.output)] or [problem.output.strip()]
    text = said[-1] if said[-1] else problem.cause
    host = registry(source.ref) if source.ref else ""
    permanent = True
    if problem.returncode is None:
        cause, hint, permanent = f"{host or source.path} did not answer in time", None, False
    elif "no space left on device" in text:
        cause, hint = "no space left on the disk of the cache", "banger image cache prune"
    elif re.search(r"HTTP response to HTTPS client", text):
        cause, hint = f"{host} does not speak TLS", "`tlsVerify: false` in the file, if that is as it should be"
    elif re.search(r"x509|certificate", text):
        cause, hint = f"the certificate of {host} is not trusted: {text}", "`certDir` in the file names its authority"
    elif re.search(r"Source image rejected|policy|signature", text, re.IGNORECASE) and "HTTP" not in text:
        cause, hint = f"the policy for signatures does not allow it: {text}", "man containers-policy.json"
    elif re.search(r"unauthorized|authentication required|denied|\b40[13]\b|invalid username", text, re.IGNORECASE):
        cause = f"{host} does not let us have it: {text}"
        hint = f"skopeo login {host}; or `authFile` in the file. Some registries say so of names that do not exist"
    elif re.search(r"manifest unknown|name unknown|not found|\b404\b", text, re.IGNORECASE):
        cause, hint = f"{host or source.path} does not have it: {text}", "look for a typing error in name or tag"
    else:
        cause, hint, permanent = text, None, not _TEMPORARY.search(text)
    return BangerError(
        f"{source.where}: {cause}",
        hint=hint,
        replay=problem.replay,
        error_class=ErrorClass.TERMINAL if permanent else ErrorClass.RETRYABLE,
    )
