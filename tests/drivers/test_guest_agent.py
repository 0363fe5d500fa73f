"""The agent's client against agents that behave, and that do not."""

from __future__ import annotations

import base64
import multiprocessing
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reconciler.drivers.guest import channel
from reconciler.drivers.guest.agent import Agent, AgentError, Finished, NoChannelError, RefusedError
from reconciler.lib import cancel
from reconciler.lib.atomic import exclusive
from reconciler.lib.errors import CancelledError
from reconciler.lib.paths import VmPaths
from tests.fakes.agent import FakeAgent, exited, returned

PATIENCE = 20.0
SOON = 0.2


@pytest.fixture
def paths(tmp_path: Path) -> VmPaths:
    # Deeper than a socket's path may be.
    run = tmp_path / ("d" * 120)
    return VmPaths(tmp_path / "root", run)


def test_one_request_and_its_answer(paths: VmPaths) -> None:
    with FakeAgent(paths, {"guest-info": lambda _: returned({"version": "7.2"})}):
        assert Agent(paths).ask("guest-info") == {"version": "7.2"}
        assert Agent(paths).ping()


def test_a_program_with_input_output_and_code(paths: VmPaths) -> None:
    asked: list[Mapping[str, Any]] = []
    turns = iter([returned({"exited": False}), exited(3, b"hello", **{"err-data": base64.b64encode(b"oh").decode()})])

    def start(arguments: Mapping[str, Any]) -> bytes:
        asked.append(arguments)
        return returned({"pid": 42})

    with FakeAgent(paths, {"guest-exec": start, "guest-exec-status": lambda _: next(turns)}):
        done = Agent(paths).run(["sh", "-c", "cat >&2; exit 3"], input=b"a\0b", env={"A": "b"}, seconds=PATIENCE)
    assert done == Finished(code=3, stdout=b"hello", stderr=b"oh")
    assert asked == [
        {
            "path": "sh",
            "arg": ["-c", "cat >&2; exit 3"],
            "capture-output": True,
            "input-data": base64.b64encode(b"a\0b").decode(),
            "env": ["A=b"],
        }
    ]


def test_a_signal_is_128_and_its_number(paths: VmPaths) -> None:
    answers = {"guest-exec-status": lambda _: returned({"exited": True, "signal": 9, "out-truncated": True})}
    with FakeAgent(paths, answers):
        assert Agent(paths).status(1) == Finished(code=137, truncated=True)


def test_a_program_that_outlasts_its_time_is_named(paths: VmPaths) -> None:
    answers = {"guest-exec": lambda _: returned({"pid": 7}), "guest-exec-status": lambda _: returned({"exited": False})}
    with FakeAgent(paths, answers), pytest.raises(AgentError, match=r"sleep still runs .* as process 7"):
        Agent(paths).run(["sleep", "1000"], seconds=SOON)


def test_files_go_in_pieces(paths: VmPaths) -> None:
    content = os.urandom(2 * (1 << 20) + 17)
    stored = bytearray()
    offset = 0

    def read(arguments: Mapping[str, Any]) -> bytes:
        nonlocal offset
        data = content[offset : offset + arguments["count"]]
        offset += len(data)
        return returned({"buf-b64": base64.b64encode(data).decode(), "eof": not data})

    def write(arguments: Mapping[str, Any]) -> bytes:
        data = base64.b64decode(arguments["buf-b64"])
        stored.extend(data)
        return returned({"count": len(data)})

    answers = {"guest-file-open": lambda _: returned(5), "guest-file-read": read, "guest-file-write": write}
    with FakeAgent(paths, answers) as fake:
        got = bytearray()
        assert Agent(paths, PATIENCE).read_file("/f", got.extend) == len(content)
        assert bytes(got) == content
        assert Agent(paths, PATIENCE).write_file("/f", [content]) == len(content)
        assert bytes(stored) == content
    assert fake.asked.count("guest-file-open") == fake.asked.count("guest-file-close") == 2


def test_a_file_that_is_too_long_is_closed_all_the_same(paths: VmPaths) -> None:
    piece = base64.b64encode(b"x" * 1000).decode()
    answers = {
        "guest-file-open": lambda _: returned(5),
        "guest-file-read": lambda _: returned({"buf-b64": piece, "eof": False}),
    }
    with FakeAgent(paths, answers) as fake:
        with pytest.raises(AgentError, match="more than 5000 bytes"):
            Agent(paths).read_file("/dev/zero", lambda data: None, limit=5000)
        assert fake.asked[-1] == "guest-file-close"


def test_what_an_earlier_exchange_left_is_passed_over(paths: VmPaths) -> None:
    with FakeAgent(paths) as fake:
        fake.say(b'\xff{"return": 1}\n{"return": "stale"}\nhalf of somethi')
        assert Agent(paths).ask("guest-info") == {}


def test_requests_that_nobody_read_do_not_fill_the_pipe(paths: VmPaths) -> None:
    """A guest that boots is asked again and again whether it is there."""
    with FakeAgent(paths, silent=True):
        for _ in range(3):
            assert not Agent(paths).ping(0.01)
        reader = os.open(paths.agent_in, os.O_RDONLY | os.O_NONBLOCK)
        assert os.read(reader, 1 << 16).count(b"guest-ping") == 1
        os.close(reader)


def test_a_refusal_has_the_agents_words(paths: VmPaths) -> None:
    error = b'{"error": {"class": "GenericError", "desc": "Failed to execute\\u001b[31m  child"}}\n'
    with FakeAgent(paths, {"guest-exec": lambda _: error}):
        with pytest.raises(RefusedError, match="refuses guest-exec: Failed to execute") as caught:
            Agent(paths).start(["nothing"])
        assert caught.value.reason == "GenericError"


@pytest.mark.parametrize(
    "answer",
    [
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b'{"return": {"pid": "1"}}\n',
        b'{"return": {"pid": true}}\n',
        b'{"return": 5}\n',
        b"\xff\xff\n",
        b"[" * 100_000 + b"\n",
    ],
    ids=str,
)
def test_answers_that_are_none(paths: VmPaths, answer: bytes) -> None:
    with FakeAgent(paths, {"guest-exec": lambda _: answer}):
        with pytest.raises(AgentError):
            Agent(paths, PATIENCE).start(["true"])
        assert Agent(paths).ping(), "the next exchange is not spoilt by it"


def test_what_is_not_base64(paths: VmPaths) -> None:
    answers = {"guest-exec-status": lambda _: returned({"exited": True, "exitcode": 0, "out-data": "?"})}
    with FakeAgent(paths, answers), pytest.raises(AgentError, match="base64"):
        Agent(paths).status(1)


def test_an_answer_without_end_is_cut_off(paths: VmPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_ANSWER", 10_000)
    with (
        # What nobody reads fits into a pipe (pipe(7)).
        FakeAgent(paths, {"guest-info": lambda _: b"x" * 40_000}),
        pytest.raises(AgentError, match="more than 10000 bytes"),
    ):
        Agent(paths, PATIENCE).ask("guest-info")


def test_silence_ends(paths: VmPaths) -> None:
    with FakeAgent(paths, {"guest-info": lambda _: b""}), pytest.raises(AgentError, match="does not answer in time"):
        Agent(paths, SOON).ask("guest-info")


def test_a_vm_that_does_not_run_has_no_channel(paths: VmPaths) -> None:
    with pytest.raises(NoChannelError, match="no channel") as caught:
        Agent(paths).ask("guest-info")
    assert caught.value.hint and "restart it" in caught.value.hint
    assert not paths.run.exists(), "asking makes nothing"
    assert not Agent(paths).shut_down()


def test_pipes_that_nobody_holds(paths: VmPaths) -> None:
    FakeAgent(paths).stop()
    with pytest.raises(NoChannelError, match="closed"):
        Agent(paths).ask("guest-info")


def test_a_vm_that_ends_meanwhile(paths: VmPaths) -> None:
    ended = threading.Event()

    def end(_: Mapping[str, Any]) -> bytes:
        ended.set()
        return b""

    fake = FakeAgent(paths, {"guest-info": end})
    threading.Thread(target=lambda: (ended.wait(PATIENCE), fake.stop()), daemon=True).start()
    with pytest.raises(NoChannelError, match="ended while"):
        Agent(paths, PATIENCE).ask("guest-info")


def test_what_is_no_pipe_is_left_alone(paths: VmPaths) -> None:
    paths.run.mkdir(parents=True)
    paths.agent_in.write_text("something")
    paths.agent_out.write_text("else")
    with pytest.raises(NoChannelError, match="no named pipe"):
        Agent(paths).ask("guest-info")
    assert paths.agent_in.read_text() == "something"


def test_many_callers_take_turns(paths: VmPaths) -> None:
    echo = {"guest-exec": lambda arguments: returned({"pid": int(arguments["arg"][0])})}
    with FakeAgent(paths, echo):
        agent = Agent(paths, PATIENCE)
        with ThreadPoolExecutor(20) as pool:
            numbers = range(200)
            assert list(pool.map(lambda n: agent.start(["echo", str(n)]), numbers)) == list(numbers)


def test_a_turn_that_never_comes(paths: VmPaths) -> None:
    with FakeAgent(paths), exclusive(paths.agent_lock), pytest.raises(AgentError, match="busy"):
        Agent(paths, SOON).ask("guest-info")


def test_a_caller_that_was_killed_in_the_middle_keeps_nobody_out(paths: VmPaths) -> None:
    asked = threading.Event()

    def hang(_: Mapping[str, Any]) -> bytes:
        asked.set()
        return b""

    with FakeAgent(paths, {"guest-info": hang}):
        child = multiprocessing.get_context("spawn").Process(target=_ask_for_ever, args=(paths,))
        child.start()
        assert asked.wait(PATIENCE)
        child.kill()
        child.join()
        assert Agent(paths, PATIENCE).ping()


def _ask_for_ever(paths: VmPaths) -> None:
    Agent(paths, 1000).ask("guest-info")


def test_a_shutdown_is_not_waited_for(paths: VmPaths) -> None:
    with FakeAgent(paths, {"guest-shutdown": lambda _: b""}) as fake:
        assert Agent(paths, PATIENCE).shut_down()
        assert Agent(paths, PATIENCE).ping()
        assert fake.asked == ["guest-shutdown", "guest-ping"]


def test_ctrl_c_ends_the_waiting(paths: VmPaths) -> None:
    def end(_: Mapping[str, Any]) -> bytes:
        cancel.cancel()
        return b""

    try:
        with FakeAgent(paths, {"guest-info": end}), pytest.raises(CancelledError):
            Agent(paths, PATIENCE).ask("guest-info")
    finally:
        cancel.reset()
