"""Images of registries: what is refused, and what stays when a registry misbehaves."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.drivers.images import build as builder
from reconciler.drivers.images import oci, skopeo
from reconciler.lib import cancel, run
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from tests.drivers.pulling import BASE, built, leftovers, made, needs_tools
from tests.fakes.images import Handler, MadeImage, Registry, image, serving

pytestmark = needs_tools


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as started:
        yield started


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(tmp_path / "home")})


def wrong_size(pushed: MadeImage) -> None:
    pushed.manifest["layers"][0]["size"] += 1


def foreign(pushed: MadeImage) -> None:
    pushed.manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    pushed.manifest["layers"][0]["urls"] = ["http://169.254.169.254/"]


def unknown_layer(pushed: MadeImage) -> None:
    pushed.manifest["layers"][0]["mediaType"] = "application/x-layer"


def md5(pushed: MadeImage) -> None:
    pushed.manifest["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e"


def climbing(pushed: MadeImage) -> None:
    pushed.manifest["layers"][0]["digest"] = "sha256:../../../etc/passwd"


def artifact(pushed: MadeImage) -> None:
    pushed.manifest["config"]["mediaType"] = "application/vnd.example.chart.config.v1+json"


def no_layers(pushed: MadeImage) -> None:
    pushed.manifest["layers"] = []


def more_layers_than_told(pushed: MadeImage) -> None:
    pushed.manifest["layers"] *= 2


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (wrong_size, "layer 1 has .* bytes, and its manifest says"),
        (foreign, "layer 1 is not in the registry but somewhere else"),
        (unknown_layer, "application/x-layer"),
        (md5, "only sha256"),
        (climbing, "only sha256"),
        (artifact, "no container image"),
        (no_layers, "0 layers"),
        (more_layers_than_told, "does not list the 2 layers"),
    ],
)
def test_what_no_image_may_be_is_refused_and_leaves_nothing(
    registry: Registry, paths: Paths, spoil: Any, says: str
) -> None:
    pushed = image(BASE)
    spoil(pushed)
    reference = registry.push("a/b", "1", pushed)
    with pytest.raises(BangerError, match=says) as refused:
        builder.build(made(reference), paths, Silent())
    assert refused.value.error_class is ErrorClass.TERMINAL
    assert reference in refused.value.cause
    assert leftovers(paths) == []


def test_an_image_for_another_processor_is_refused(registry: Registry, paths: Paths) -> None:
    reference = registry.push("a/b", "1", image(BASE, architecture="arm64"))
    with pytest.raises(BangerError, match="for linux/arm64, and not for linux/amd64"):
        builder.build(made(reference), paths, Silent())
    assert leftovers(paths) == []


def test_other_content_under_the_right_name_is_not_taken(registry: Registry, paths: Paths) -> None:
    """A registry, or somebody on the way, that answers a digest with something else."""
    pushed, evil = image(BASE), image({"evil": b"1"})
    registry.push("a/b", "1", pushed)
    registry.manifests[f"a/b/{pushed.digest}"] = (evil.manifest["mediaType"], evil.raw)
    pinned = made(f"127.0.0.1:{registry.port}/a/b@{pushed.digest}", digest=pushed.digest)
    with pytest.raises(BangerError):
        builder.build(pinned, paths, Silent())
    assert leftovers(paths) == []


def truncated(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def other_bytes(handler: Handler, data: bytes) -> None:
    handler.answer(200, bytes(len(data)))


def failing(handler: Handler, data: bytes) -> None:
    handler.answer(500, b"{}")


def unauthorized(handler: Handler, data: bytes) -> None:
    handler.answer(401, b"{}", WWW_Authenticate='Basic realm="r"')


def stalling(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:10])
    handler.wfile.flush()
    handler.registry.closing.wait(60)


@pytest.mark.parametrize(
    ("fault", "at", "error_class", "says"),
    [
        (truncated, "/blobs/", ErrorClass.RETRYABLE, "EOF"),
        (other_bytes, "/blobs/", ErrorClass.RETRYABLE, "(?i)digest"),
        (failing, "/blobs/", ErrorClass.RETRYABLE, "500"),
        (failing, "/manifests/", ErrorClass.RETRYABLE, "500"),
        (unauthorized, "/manifests/", ErrorClass.TERMINAL, "does not let us have it"),
        (stalling, "/blobs/", ErrorClass.RETRYABLE, "has sent nothing for"),
    ],
)
def test_a_registry_that_misbehaves_once_leaves_nothing_and_the_retry_succeeds(
    registry: Registry,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    at: str,
    error_class: ErrorClass,
    says: str,
) -> None:
    monkeypatch.setattr(oci, "_SILENCE_SECONDS", 1.0)
    pushed = image({"big": os.urandom(50_000)})
    wanted = made(registry.push("a/b", "1", pushed))
    registry.faults[at] = fault
    began = time.monotonic()
    with pytest.raises(BangerError, match=says) as failed:
        builder.build(wanted, paths, Silent())
    assert time.monotonic() - began < 30
    assert failed.value.error_class is error_class, failed.value.cause
    assert not [name for name in leftovers(paths) if "images" in name or ".staging" in name]
    registry.faults.clear()
    built(wanted, paths)


def test_a_registry_that_is_not_there_or_silent_is_told_soon(
    registry: Registry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BangerError, match="connection refused") as refused:
        builder.build(made("127.0.0.1:9/a/b:1"), paths, Silent())
    assert refused.value.error_class is ErrorClass.RETRYABLE
    monkeypatch.setattr(skopeo, "_ANSWER_SECONDS", 1.0)
    registry.faults["/v2/"] = stalling
    with pytest.raises(BangerError, match="did not answer in time") as silent:
        builder.build(made(registry.push("a/b", "1", image(BASE))), paths, Silent())
    assert silent.value.error_class is ErrorClass.RETRYABLE


def test_what_is_not_there_is_told_with_its_name(registry: Registry, paths: Paths) -> None:
    with pytest.raises(BangerError, match="does not have it") as missing:
        builder.build(made(registry.reference("a/b", "2")), paths, Silent())
    assert missing.value.error_class is ErrorClass.TERMINAL
    assert registry.reference("a/b", "2") in missing.value.cause


def test_a_cancelled_pull_leaves_nothing(registry: Registry, paths: Paths) -> None:
    wanted = made(registry.push("a/b", "1", image({"big": os.urandom(50_000)})))
    stalled = threading.Event()

    def stall(handler: Handler, data: bytes) -> None:
        stalled.set()
        stalling(handler, data)

    registry.faults["/blobs/"] = stall
    raised: list[BaseException] = []

    def pull() -> None:
        try:
            builder.build(wanted, paths, Silent())
        except BangerError as problem:
            raised.append(problem)

    thread = threading.Thread(target=pull)
    thread.start()
    assert stalled.wait(20)
    try:
        run.cancel_all()
        thread.join(20)
    finally:
        cancel.reset()
    assert isinstance(raised[0], CancelledError)
    assert leftovers(paths) == []


def test_a_policy_that_rejects_the_image_is_obeyed(registry: Registry, paths: Paths, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "reject"}]}))
    reference = registry.push("a/b", "1", image(BASE))
    with pytest.raises(BangerError, match="policy for signatures"):
        builder.build(made(reference, policy=str(policy)), paths, Silent())
    assert leftovers(paths) == []


def test_who_one_is_comes_from_the_file_that_is_named(registry: Registry, paths: Paths, tmp_path: Path) -> None:
    reference = registry.push("a/b", "1", image(BASE))
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {f"127.0.0.1:{registry.port}": {"auth": "bWU6c2VjcmV0"}}}))

    def guarded(handler: Handler, data: bytes) -> None:
        if handler.headers.get("Authorization") != "Basic bWU6c2VjcmV0":
            unauthorized(handler, data)
        elif "/manifests/" in handler.path:
            handler.answer(200, data, Content_Type="application/vnd.oci.image.manifest.v1+json")
        else:
            handler.answer(200, data)

    registry.faults["/v2/"] = guarded
    with pytest.raises(BangerError, match="does not let us have it") as refused:
        builder.build(made(reference), paths, Silent())
    assert refused.value.hint is not None and f"skopeo login 127.0.0.1:{registry.port}" in refused.value.hint
    built(made(reference, auth_file=str(auth)), paths)


def test_progress_is_in_bytes_and_never_goes_back(registry: Registry, paths: Paths) -> None:
    told: list[tuple[float | None, str]] = []

    class Listening:
        def update(self, fraction: float | None, message: str) -> None:
            told.append((fraction, message))

    def slowly(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for start in range(0, len(data), len(data) // 4):
            handler.wfile.write(data[start : start + len(data) // 4])
            handler.wfile.flush()
            handler.registry.closing.wait(0.3)

    registry.faults["/blobs/"] = slowly
    builder.build(made(registry.push("a/b", "1", image({"big": os.urandom(1 << 20)}))), paths, Listening())
    fractions = [fraction for fraction, _ in told if fraction is not None]
    assert fractions == sorted(fractions)
    assert any(message.startswith("pulling ") and message.endswith("of 1.0 MiB") for _, message in told)


def test_a_registry_that_asks_to_wait_is_waited_for(registry: Registry, paths: Paths) -> None:
    registry.once = True
    registry.faults["/blobs/"] = lambda handler, data: handler.answer(429, b"{}", Retry_After="1")
    built(made(registry.push("a/b", "1", image(BASE))), paths)


def test_a_registry_that_asks_to_wait_for_ever_is_not(
    registry: Registry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skopeo, "_ANSWER_SECONDS", 2.0)
    registry.faults["/manifests/"] = lambda handler, data: handler.answer(429, b"{}", Retry_After="3600")
    with pytest.raises(BangerError) as late:
        builder.build(made(registry.push("a/b", "1", image(BASE))), paths, Silent())
    assert late.value.error_class is ErrorClass.RETRYABLE


def test_a_redirect_is_followed_and_what_it_leads_to_is_verified(registry: Registry, paths: Paths) -> None:
    pushed = image(BASE)
    layer = pushed.manifest["layers"][0]["digest"]
    reference = registry.push("a/b", "1", pushed)
    to = f"http://127.0.0.1:{registry.port}/v2/other/blobs/{layer}"
    registry.faults[f"/a/b/blobs/{layer}"] = lambda handler, data: handler.answer(307, b"", Location=to)
    registry.faults[f"/other/blobs/{layer}"] = other_bytes
    with pytest.raises(BangerError, match=r"(?i)digest"):
        builder.build(made(reference), paths, Silent())
    del registry.faults[f"/other/blobs/{layer}"]
    built(made(reference), paths)
    assert registry.count("/other/") == 2
