"""Whatever is sent, the answer is a problem document, and the server goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.api.client import RemoteService
from reconciler.api.requests import BODY_LIMIT
from reconciler.api.server import Server
from reconciler.model.codec import to_json
from tests.api.conftest import connected, request
from tests.fakes import service as fake
from tests.fakes.service import FakeService

JSON = {"Content_Type": "application/json"}


def plan_body(**changes: Any) -> bytes:
    return json.dumps({"desired": {**to_json(fake.desired()), **changes}}).encode()


def waiting(**names: str) -> dict[str, Any]:
    """VMs, each of which waits for another one."""
    return {
        name: {**to_json(fake.vm_spec(name)), "depends_on": [{"vm": other, "on": "ready"}]}
        for name, other in names.items()
    }


BAD_BODIES = {
    "empty": (b"", 400),
    "no json": (b"{", 400),
    "not utf-8": (b'{"desired": "\xff"}', 400),
    "half a surrogate pair": (b'{"desired": "\\ud800"}', 400),
    "a zero": (b'{"desired": "a\\u0000"}', 400),
    "not a number": (b'{"desired": NaN}', 400),
    "endless": (b'{"desired": 1e999}', 400),
    "too many digits": (b'{"desired": ' + b"9" * 5000 + b"}", 400),
    "a key twice": (b'{"desired": {}, "desired": {}}', 400),
    "deep": (b'{"desired": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
    "very deep": (b"[" * 500_000, 400),
    "a list": (b"[]", 422),
    "another key": (b'{"desired": {"environment": "demo"}, "more": 1}', 422),
    "nothing desired": (b"{}", 422),
    "a path for a name": (plan_body(environment="../../etc"), 422),
    "a line break after a name": (plan_body(environment="demo\n"), 422),
    "another name than its key": (plan_body(vms={"web": to_json(fake.vm_spec("dev"))}), 422),
    "an image that is not there": (plan_body(images={}), 422),
    "a kernel that is not there": (plan_body(kernels={}), 422),
    "another identity": (plan_body(vms={"dev": {**to_json(fake.vm_spec()), "image_id": "0" * 16}}), 422),
    "a network that is not there": (plan_body(vms={"dev": {**to_json(fake.vm_spec()), "network": "lab"}}), 422),
    "a vm that waits for one that is not there": (plan_body(vms=waiting(dev="web")), 422),
    "vms that wait for each other": (plan_body(vms=waiting(dev="web", web="dev")), 422),
    "an option for a program": (
        plan_body(kernels={"debian": {"name": "debian", "suite": "bookworm", "package": "--no-check"}}),
        422,
    ),
    "a number that is too large for a float": (
        plan_body(vms={"dev": {**to_json(fake.vm_spec()), "ready": {"timeout": 10**400}}}),
        422,
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_not_right(server: Server, service: FakeService, path: Path, name: str) -> None:
    body, expected = BAD_BODIES[name]
    status, headers, answer = request(path, "POST", "/v1/plan", body, **JSON)
    assert status == expected, answer
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(answer)["status"] == expected
    assert service.calls == []


def test_a_body_that_is_right(server: Server, path: Path) -> None:
    """The bodies above are refused for what is wrong with them, not for what they have in common."""
    assert request(path, "POST", "/v1/plan", plan_body(), **JSON)[0] == 200
    vms = {**waiting(web="dev"), "dev": to_json(fake.vm_spec())}
    assert request(path, "POST", "/v1/plan", plan_body(vms=vms), **JSON)[0] == 200


def test_a_body_that_is_too_large(server: Server, service: FakeService, path: Path) -> None:
    largest = b'{"desired": "' + b"x" * (BODY_LIMIT - 15) + b'"}'
    assert len(largest) == BODY_LIMIT
    assert request(path, "POST", "/v1/plan", largest, **JSON)[0] == 422
    assert request(path, "POST", "/v1/plan", largest + b" ", **JSON)[0] == 413
    assert service.calls == []


def test_a_body_that_does_not_say_how_large_it_is(server: Server, remote: RemoteService, path: Path) -> None:
    with connected(path) as client:
        client.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        client.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sent = 0
        while sent <= BODY_LIMIT:
            client.sendall(chunk)
            sent += 0x10000
        assert client.recv(12) == b"HTTP/1.1 413"
    assert remote.environments() == ["demo"]


def test_a_body_that_is_no_json_by_its_own_word(server: Server, path: Path) -> None:
    assert request(path, "POST", "/v1/plan", plan_body())[0] == 415
    assert request(path, "POST", "/v1/plan", plan_body(), Content_Type="application/json; charset=utf-8")[0] == 200


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("/v1/vms?environment=Demo", 422),
        ("/v1/vms?environment=", 422),
        ("/v1/vms?environment=demo%0A", 422),
        ("/v1/vms?environment=a&environment=b", 422),
        ("/v1/vms?environmnet=a", 422),
        ("/v1/resolve", 422),
        ("/v1/events?after=-1", 422),
        ("/v1/events?after=1.5", 422),
        ("/v1/events?after=%D9%A3", 422),
        ("/v1/events?after=99999999999999999999999", 422),
        ("/v1/events?follow=yes", 422),
        ("/v1/events?follow=true", 422),
        ("/v1/vms/demo/..%2f..%2fetc/console", 404),
        ("/v1/vms/demo/../console", 422),
        ("/v1/vms/demo/%00/console", 422),
        ("/v1/nothing", 404),
        ("/", 404),
        ("/v1/vms/", 404),
    ],
)
def test_a_path_that_leads_nowhere(server: Server, service: FakeService, path: Path, where: str, expected: int) -> None:
    status, headers, answer = request(path, "GET", where)
    assert status == expected, answer
    assert headers["content-type"] == "application/problem+json"
    assert service.calls == []


def test_a_method_that_is_none(server: Server, path: Path) -> None:
    status, headers, _ = request(path, "DELETE", "/v1/status")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_a_body(server: Server, path: Path) -> None:
    assert request(path, "HEAD", "/v1/status")[::2] == (200, b"")


def test_no_http_at_all(server: Server, remote: RemoteService, path: Path) -> None:
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"A" * 100_000):
        with connected(path) as client:
            client.sendall(noise)
            assert client.recv(12) == b"HTTP/1.1 400"
    assert remote.environments() == ["demo"]


def test_every_answer_names_its_operation(server: Server, service: FakeService, path: Path) -> None:
    def header(where: str, **headers: str) -> str:
        return request(path, "GET", where, **headers)[1]["banger-operation"]

    assert header("/v1/vms", Banger_Operation="op-1") == "op-1"
    assert header("/v1/vms?environment=A", Banger_Operation="op-1") == "op-1"
    first, second = header("/v1/vms"), header("/v1/vms")
    assert first
    assert first != second
    assert request(path, "GET", "/v1/vms", Banger_Operation="a b")[0] == 422

    request(path, "POST", "/v1/plan", plan_body(), Banger_Operation="op-2", **JSON)
    assert service.calls[-1][2].operation == "op-2"


def test_the_description_and_what_prometheus_reads(server: Server, path: Path) -> None:
    status, _, answer = request(path, "GET", "/v1/openapi.json")
    assert status == 200
    assert json.loads(answer)["openapi"] == "3.1.0"
    status, headers, answer = request(path, "GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'banger_vm_ready{environment="demo",name="dev"} 1\n' in answer
