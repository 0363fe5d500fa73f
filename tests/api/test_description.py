"""The description and the server agree: schemathesis asks everything that the one says, and much that it does not."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings

from reconciler.api.openapi import document
from reconciler.api.routes import ENDPOINTS
from reconciler.api.server import Server
from reconciler.api.service import TrashEntry
from tests.api import uds
from tests.fakes import service as fake
from tests.fakes.service import FakeService

# `make test` asks a little; BANGER_EXAMPLES=300 asks much.
EXAMPLES = int(os.environ.get("BANGER_EXAMPLES", "0")) or 3

config = schemathesis.Config.from_dict(
    {
        "checks": {
            # What no schema can say: names that refer to each other, a digest that nothing waits for.
            "positive_data_acceptance": {"expected-statuses": ["2xx", 422]},
        },
        "generation": {"deterministic": True, "database": "none"},
    }
)
description = schemathesis.openapi.from_dict(document(), config=config)


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[FakeService, requests.Session]]:
    service = FakeService(
        happened=[fake.event(1), fake.event(2, warning=True)],
        trashed=[TrashEntry(entry="demo.old.1", environment="demo", name="old", trashed_at=1.0, size=2)],
        awaiting={"0123456789ab": "demo"},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.sock"
        server = Server(service, path, uid=os.geteuid())
        server.start()
        with uds.session(path) as session:
            yield service, session
        server.stop()


@description.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_operation(case: schemathesis.Case, asked: tuple[FakeService, requests.Session]) -> None:
    case.call_and_validate(base_url="http://localhost", session=asked[1], timeout=20)


def test_it_describes_every_route() -> None:
    described = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert described == {(e.method, e.path) for e in ENDPOINTS} | {("GET", "/v1/openapi.json")}


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(names) == len(set(names))


def test_events_keep_to_their_published_schema() -> None:
    published = json.loads((Path(__file__).parents[2] / "schemas/event.schema.json").read_text())
    for event in (fake.event(1), fake.event(2, warning=True, operation="")):
        jsonschema.validate(event.to_json(), published)
    described = document()["components"]["schemas"]["Event"]
    assert set(described["properties"]) == set(published["properties"]) == set(fake.event(1).to_json())


def test_the_page_names_every_operation() -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    for endpoint in ENDPOINTS:
        assert endpoint.path.rpartition("/")[2].partition("{")[0] in page, endpoint.path


def test_its_examples_are_accepted(asked: tuple[FakeService, requests.Session]) -> None:
    """So that the operations are reached at all, and not just what refuses bad requests."""
    _, session = asked
    values: dict[str, Any] = {
        "environment": "demo",
        "name": "dev",
        "digest": "0123456789ab",
        "image": "0123456789abcdef",
        "entry": "demo.old.1",
    }
    query = {"resolve": {"name": "dev"}}
    for endpoint in ENDPOINTS:
        path = endpoint.path.format(**values)
        answer = session.request(
            endpoint.method,
            f"http://localhost{path}",
            params=query.get(endpoint.name),
            json=endpoint.example,
            timeout=20,
        )
        assert answer.status_code == 200, (endpoint.name, answer.text)
        if endpoint.kind.streams:
            assert "event: result\n" in answer.text, (endpoint.name, answer.text)
