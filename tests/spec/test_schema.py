"""The schema is valid, complete, and says what the program does; the page and the example follow it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from reconciler.helper import policy
from reconciler.lib import units
from reconciler.model.changes import VM_FIELDS, ChangeClass
from reconciler.model.desired import Controller
from reconciler.model.ids import ENVIRONMENT_NAME, OBJECT_NAME
from reconciler.model.vm import Backend, DependsOn, OnChange, RestartPolicy, RunState
from reconciler.spec import load_text, networks, published, schema
from reconciler.spec.load import MAX_DEPTH, MAX_WEIGHT
from reconciler.spec.reference import render
from reconciler.spec.vms import MAX_VMS

ROOT = Path(__file__).parent.parent.parent
DEFINITIONS = schema()["$defs"]


def fields(described: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that a file can hold, with its description."""
    for key, field in described.get("properties", {}).items():
        yield f"{path}.{key}", field
        yield from fields(field, f"{path}.{key}")
    if isinstance(described.get("additionalProperties"), dict):
        yield from fields(described["additionalProperties"], f"{path}.*")


FIELDS = dict(fields(published.expand(schema())))


def test_is_a_schema_of_its_draft() -> None:
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"].endswith("2020-12/schema") and schema()["$id"]


def test_is_the_published_file() -> None:
    assert schema() == json.loads((ROOT / "schemas" / "banger.schema.json").read_text())


def test_a_wheel_s_own_copy_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reconciler" / "_data" / "schemas"
    folder.mkdir(parents=True)
    (folder / "banger.schema.json").write_text("{}")
    monkeypatch.setattr(published, "_PACKAGE", tmp_path / "reconciler")
    assert published.schema_text.__wrapped__() == "{}"


@pytest.mark.parametrize("path", FIELDS)
def test_every_key_is_described_and_has_examples_that_fit(path: str) -> None:
    field = FIELDS[path]
    assert len(field["description"]) > 10
    if path != ".defaults.image":
        assert field["examples"]
    for example in [*field["examples"], *([field["default"]] if "default" in field else [])]:
        Draft202012Validator(field).validate(example)


def test_every_mapping_is_closed() -> None:
    for path, field in {**FIELDS, "": schema()}.items():
        if field.get("type") == "object":
            assert "additionalProperties" in field, path


def test_every_pattern_is_told_in_words() -> None:
    for text in re.findall(r'\{[^{}]*"pattern"[^{}]*(?:\{[^{}]*\}[^{}]*)*\}', json.dumps(published.expand(schema()))):
        assert "x-expect" in text


def test_every_field_of_a_vm_has_the_change_class_that_the_planner_uses() -> None:
    stated = {key: ChangeClass(field["x-change"]) for key, field in DEFINITIONS["vm"]["properties"].items()}
    assert stated.pop("count") is ChangeClass.NONE  # which is no field of one VM
    assert stated == VM_FIELDS


@pytest.mark.parametrize(
    "definition",
    [
        "network",
        "egress",
        "debianKernel",
        "debianImage",
        "volume",
        "file",
        "secret",
        "provisionStep",
        "ready",
        "workspace",
        "controller",
    ],
)
def test_every_other_field_has_a_change_class(definition: str) -> None:
    for field in DEFINITIONS[definition]["properties"].values():
        ChangeClass(field["x-change"])


def test_defaults_takes_every_field_of_a_vm_but_those_that_it_explains() -> None:
    refused = DEFINITIONS["defaults"]["x-refused"]
    assert set(refused) == {"count", "address", "protect", "ports", "dependsOn"}
    assert set(DEFINITIONS["defaults"]["properties"]) == set(DEFINITIONS["vm"]["properties"]) - set(refused)


def test_the_limits_are_those_of_the_model_and_the_helper() -> None:
    assert schema()["properties"]["name"]["pattern"] == f"^{ENVIRONMENT_NAME}$"
    assert DEFINITIONS["objectName"]["pattern"] == f"^{OBJECT_NAME}$"
    assert DEFINITIONS["vm"]["properties"]["backend"]["enum"] == list(Backend)
    assert DEFINITIONS["vm"]["properties"]["state"]["enum"] == list(RunState)
    assert DEFINITIONS["vm"]["properties"]["restart"]["enum"] == list(RestartPolicy)
    assert DEFINITIONS["vm"]["properties"]["onChange"]["enum"] == list(OnChange)
    assert DEFINITIONS["vm"]["properties"]["dependsOn"]["additionalProperties"]["enum"] == list(DependsOn)
    mtu = DEFINITIONS["network"]["properties"]["mtu"]
    assert range(mtu["minimum"], mtu["maximum"] + 1) == policy.MTU_RANGE
    assert schema()["properties"]["networks"]["maxProperties"] == policy.MAX_BRIDGES
    assert schema()["properties"]["vms"]["maxProperties"] == MAX_VMS == policy.MAX_TAPS
    assert networks.PREFIXES == policy.PREFIX_RANGE


def test_a_file_without_a_controller_section_gets_the_model_s_defaults() -> None:
    assert load_text(b"apiVersion: banger/v1\nname: demo\n", "stdin", {}, {}).controller == Controller()


@pytest.mark.parametrize(
    "text", ["0B", "512MiB", "8GiB", "1TiB", "7KiB", "999999999999999B", "01B", "1GB", "-1B", "1.5GiB", ""]
)
def test_a_size_is_what_lib_units_reads(text: str) -> None:
    readable = bool(re.search(DEFINITIONS["size"]["pattern"], text))
    try:
        units.parse_size(text)
    except ValueError:
        assert not readable
    else:
        assert readable


@pytest.mark.parametrize("text", ["0s", "90s", "10m", "7d", "250ms", "1h", "90", "1.5s", "s", "01s", "1w"])
def test_a_duration_is_what_lib_units_reads(text: str) -> None:
    readable = bool(re.search(DEFINITIONS["duration"]["pattern"], text))
    try:
        units.parse_duration(text)
    except ValueError:
        assert not readable
    else:
        assert readable


def test_an_editor_agrees_with_the_example() -> None:
    text = (ROOT / "banger.yaml.example").read_text()
    assert text.startswith("# yaml-language-server: $schema=schemas/banger.schema.json\n")
    Draft202012Validator(schema()).validate(yaml.safe_load(text))


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "spec.md").read_text()
    assert page == render(depth=MAX_DEPTH, weight=MAX_WEIGHT), "python -m reconciler.spec.reference > docs/spec.md"
