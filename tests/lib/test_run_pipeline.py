"""What a pipe of commands says when one of them fails."""

from __future__ import annotations

import pytest

from reconciler.lib.run import CommandError, pipeline

ENDLESS = ["sh", "-c", "while echo x; do :; done"]
OFFENDED = ["sh", "-c", "trap '' PIPE; while echo x 2>/dev/null; do :; done; echo nobody reads >&2; exit 3"]
READS = ["sh", "-c", "cat >/dev/null"]
FULL = ["sh", "-c", "echo the disk is full >&2; exit 5"]
BROKEN = ["sh", "-c", "echo no such mirror >&2; exit 4"]


@pytest.mark.parametrize(
    ("commands", "code", "said"),
    [
        pytest.param([BROKEN, READS], 4, ["exit code 4", "no such mirror"], id="upstream"),
        pytest.param([ENDLESS, FULL], 5, ["exit code 5", "the disk is full"], id="downstream"),
        pytest.param(
            [OFFENDED, FULL], 3, ["exit code 3", "exit code 5", "nobody reads", "the disk is full"], id="both of them"
        ),
    ],
)
def test_whatever_failed_is_told(commands: list[list[str]], code: int, said: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        pipeline(commands)
    assert caught.value.returncode == code
    assert all(word in str(caught.value) for word in said), caught.value


def test_one_that_succeeds_says_nothing() -> None:
    pipeline([["echo", "x"], READS])
