"""Unquoted words mean what every tool takes them for, or are refused."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.spec.scalars import Scalar, ScalarError, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False),
        ("0", 0), ("-7", -7), ("+7", 7), ("5432", 5432), ("0x1F", 31),
        ("3.20", 3.2), ("-.5", -0.5), ("1.5e+3", 1500.0), (".inf", float("inf")), ("-.INF", float("-inf")),
        ("tRue", "tRue"), ("nil", "nil"), ("n", "n"), ("y", "y"), ("172.30.7.10", "172.30.7.10"), ("172.30.7.0/24", "172.30.7.0/24"),
        ("512MiB", "512MiB"), ("90s", "90s"), ("2024", 2024), ("-", "-"), ("1-2", "1-2"), ("08:00x", "08:00x"), ("b:c", "b:c"),
    ],
)  # fmt: skip
def test_one_meaning(text: str, value: Scalar) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "yes", "No", "ON", "off", "012", "-012", "0o14", "0b11", "+0x1F", "0x1_F", "1_000", "52:54:00", "12:30", "-1:30",
        "2024-01-01", "2024-1-1", "2024-01-01T12:00:00Z", "1e3", "1.5e3", "1e+3", "08", "09.5", "=", "<<", "9" * 19, "1_0.5", "0._", "-1.5_0", ".5_", "1_0.5e+3",
    ],
)  # fmt: skip
def test_two_meanings_are_refused(text: str) -> None:
    with pytest.raises(ScalarError) as caught:
        resolve(text)
    assert caught.value.hint


@given(
    st.text(alphabet="0123456789+-._:xobeETZ nyaf~=", min_size=1, max_size=8).filter(lambda text: text == text.strip())
)
def test_what_is_taken_means_the_same_to_yaml_1_1(text: str) -> None:
    try:
        value = resolve(text)
    except ScalarError:
        return
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    old = loader.construct_object(yaml.ScalarNode(tag, text))
    assert old == value or (old != old and value != value)
    assert type(old) is type(value)
