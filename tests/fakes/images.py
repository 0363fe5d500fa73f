"""Container images made by hand, byte for byte the same each time, and a registry that serves them, or does not."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
INDEX = f"{OCI}.index.v1+json"
_SCHEMA2 = {
    f"{OCI}.manifest.v1+json": f"{DOCKER}.distribution.manifest.v2+json",
    f"{OCI}.config.v1+json": f"{DOCKER}.container.image.v1+json",
    f"{OCI}.layer.v1.tar+gzip": f"{DOCKER}.image.rootfs.diff.tar.gzip",
    f"{OCI}.layer.v1.tar": f"{DOCKER}.image.rootfs.diff.tar",
}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: Mapping[str, bytes | None]) -> bytes:
    """A tar of files, and of folders where the content is None."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.mode = 0o755 if content is None else 0o644
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    return target.getvalue()


@dataclass
class MadeImage:
    """An image: blobs by digest, and its manifest. What a test wants wrong, it changes."""

    blobs: dict[str, bytes]
    manifest: dict[str, Any]

    @property
    def raw(self) -> bytes:
        return json.dumps(self.manifest).encode()

    @property
    def digest(self) -> str:
        return digest(self.raw)


def image(
    *layers: Mapping[str, bytes | None],
    config: Mapping[str, Any] | None = None,
    compression: str = "gzip",
    docker: bool = False,
    architecture: str = "amd64",
) -> MadeImage:
    """An image of these layers, the lowest first."""
    tars = [tar(files) for files in layers]
    pack: Callable[[bytes], bytes] = {
        "gzip": lambda data: gzip.compress(data, mtime=0),
        "zstd": zstandard.ZstdCompressor().compress,
        "": lambda data: data,
    }[compression]
    packed = [pack(data) for data in tars]
    document = {
        "os": "linux",
        "architecture": architecture,
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in tars]},
        "history": [{"created_by": "a test"} for _ in tars],
    }
    raw = json.dumps(document).encode()

    def named(media_type: str) -> str:
        return _SCHEMA2[media_type] if docker else media_type

    suffix = f"+{compression}" if compression else ""
    manifest = {
        "schemaVersion": 2,
        "mediaType": named(f"{OCI}.manifest.v1+json"),
        "config": _descriptor(named(f"{OCI}.config.v1+json"), raw),
        "layers": [_descriptor(named(f"{OCI}.layer.v1.tar{suffix}"), data) for data in packed],
    }
    return MadeImage({digest(data): data for data in (raw, *packed)}, manifest)


def index(**images: MadeImage) -> bytes:
    """An index: `linux_amd64=…`, `linux_arm_v7=…`."""
    entries = []
    for name, made in images.items():
        keys = zip(("os", "architecture", "variant"), name.split("_"), strict=False)
        entries.append({**_descriptor(made.manifest["mediaType"], made.raw), "platform": dict(keys)})
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


Fault = Callable[["Handler", bytes], None]
"""Answers a request otherwise than with the content that is given."""


@dataclass
class Registry:
    """What there is, by repository, and what goes wrong: fault by a part of the path, and how often it does."""

    port: int = 0
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    once: bool = False
    asked: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def push(self, name: str, tag: str, made: MadeImage) -> str:
        """Returns the reference."""
        self.blobs |= made.blobs
        for reference in (tag, made.digest):
            self.manifests[f"{name}/{reference}"] = (made.manifest["mediaType"], made.raw)
        return self.reference(name, tag)

    def push_index(self, name: str, tag: str, raw: bytes, images: Sequence[MadeImage]) -> str:
        for made in images:
            self.push(name, made.digest, made)
        for reference in (tag, digest(raw)):
            self.manifests[f"{name}/{reference}"] = (INDEX, raw)
        return self.reference(name, tag)

    def reference(self, name: str, tag: str) -> str:
        return f"127.0.0.1:{self.port}/{name}:{tag}"

    def count(self, part: str) -> int:
        return sum(part in path for path in self.asked)


class Handler(BaseHTTPRequestHandler):
    """The part of the distribution specification that reads."""

    registry: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.registry.asked.append(self.path)
        parts = self.path.removeprefix("/v2/").split("/")
        media_type, content = "application/json", b"{}"
        if len(parts) > 2:
            name, kind, reference = "/".join(parts[:-2]), parts[-2], parts[-1]
            if kind == "blobs":
                media_type, found = "application/octet-stream", self.registry.blobs.get(reference)
            else:
                media_type, found = self.registry.manifests.get(f"{name}/{reference}", ("", None))
            if found is None:
                code = "BLOB_UNKNOWN" if kind == "blobs" else "MANIFEST_UNKNOWN"
                error = {"code": code, "message": f"{kind[:-1]} unknown"}
                return self.answer(404, json.dumps({"errors": [error]}).encode())
            content = found
        for part, fault in list(self.registry.faults.items()):
            if part in self.path:
                if self.registry.once:
                    del self.registry.faults[part]
                return fault(self, content)
        return self.answer(200, content, **{"Content-Type": media_type})

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, code: int, content: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Registry]:
    """A registry on a free port of the loopback."""
    registry = Registry()
    handler = type("_Handler", (Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield registry
    finally:
        registry.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
