"""Each file of tests/cases/spec/valid resolves to exactly the JSON beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from reconciler.model.codec import to_json
from reconciler.model.desired import DesiredState
from reconciler.spec import SpecError, load_file, load_text

ROOT = Path(__file__).parent.parent.parent
CASES = sorted((ROOT / "tests" / "cases" / "spec" / "valid").glob("*.yaml"))
PARAMETERS = next(case for case in CASES if case.stem == "parameters")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_resolves_to(case: Path) -> None:
    loaded = load_file(case, env={})
    assert to_json(loaded.desired) == json.loads(case.with_suffix(".json").read_text())
    assert loaded.digest == hashlib.sha256(case.read_bytes()).hexdigest()
    assert loaded.path == case


def test_the_order_of_vms_is_the_file_s() -> None:
    full = next(case for case in CASES if case.stem == "full")
    assert list(load_file(full, env={}).desired.vms) == ["db", "web-1", "web-2", "web-3", "one-1", "alone"]


def test_the_example_is_valid_and_needs_no_root() -> None:
    desired = load_file(ROOT / "banger.yaml.example", env={}).desired
    assert desired.environment == "demo"
    assert list(desired.vms) == ["dev"]
    assert not desired.networks and not desired.vms["dev"].bridged
    assert [volume.name for volume in desired.vms["dev"].volumes] == ["data"]


def parameters(overrides: dict[str, str], env: dict[str, str]) -> DesiredState:
    return load_file(PARAMETERS, overrides, env).desired


def test_a_parameter_is_taken_from_the_option_then_the_environment_then_its_default() -> None:
    assert parameters({}, {}).environment == "me-env"
    assert parameters({}, {"BANGER_PARAM_WHO": "upper"}).environment == "upper-env"
    assert parameters({}, {"BANGER_PARAM_WHO": "upper", "BANGER_PARAM_who": "lower"}).environment == "lower-env"
    assert parameters({"who": "you"}, {"BANGER_PARAM_who": "lower"}).environment == "you-env"


def test_parameters_are_converted_to_their_type() -> None:
    assert parameters({"size": "128"}, {}).vms["dev"].memory == 128 * 1024**2


@pytest.mark.parametrize("value", ["", "x", "1.5", "٣", "9" * 30, "1\n", "x" * 2000])
def test_a_value_of_the_wrong_type_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(SpecError, match="BANGER_PARAM_size") as caught:
        parameters({}, {"BANGER_PARAM_size": value})
    assert not value or value not in caught.value.errors[0].message


def test_a_setting_for_an_undeclared_parameter_is_refused() -> None:
    with pytest.raises(SpecError, match=r"--set 'sise' names no parameter of this file; did you mean 'size'\?"):
        parameters({"sise": "1"}, {})


def test_other_variables_of_the_environment_do_not_count() -> None:
    assert parameters({}, {"BANGER_PARAM_other": "1"}) == parameters({}, {})


def test_what_came_from_the_environment_is_not_shown() -> None:
    with pytest.raises(SpecError) as caught:
        parameters({}, {"BANGER_PARAM_who": "hunter2 hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "name: '${who}-env' (filled in) is not a name" in str(caught.value)


def test_a_value_cannot_change_the_structure() -> None:
    with pytest.raises(SpecError, match="the value of --set who holds control characters"):
        parameters({"who": "x\nvms: {}"}, {})
    with pytest.raises(SpecError, match="the value of --set who is longer than 1024 characters"):
        parameters({"who": "x" * 1025}, {})
    with pytest.raises(SpecError):
        parameters({"who": "${size}"}, {})


def test_bytes_can_be_checked_without_a_file() -> None:
    assert load_text(b"apiVersion: banger/v1\nname: demo\n", "stdin", {}, {}).environment == "demo"
