"""Feeds the helper's session with frames that nobody would send: `python -m tests.fuzz.helper --frames N [--seed S]`.

Everything between the socket and the operations is real: transport, decoding, policy, replays, audit, answers. The
socket is a wire in memory, since system calls would be most of the time; a share of the frames goes over a real one.
The operations are a fake that succeeds, and checks that nothing it is given could be anything but what it should.
The same seed makes the same frames. Prints what came of them; the exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reconciler.helper import audit, nft, policy
from reconciler.helper.client import decode_answer
from reconciler.helper.protocol import HEADER, MAX_FRAME, Code, Done, Op, Refusal, Request
from reconciler.helper.session import Replays, Session

CORPUS = Path(__file__).parent / "corpus"
MOST_MEMORY = 64.0
"""MiB."""
ON_A_SOCKET = 64
"""Every such batch of frames goes over a real socket."""
BATCH = 100
# What a ruleset is made of, beside the words of nft itself. No quote or brace inside a quoted text, no line of its own.
HARMLESS = re.compile(r'[a-zA-Z0-9_.:;/@,{}!=&|"* \n-]*')
INTERESTING: list[object] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, "", "a", "..", "-x", "a/b", "a\0", "a\n", "a b", "%d", "a" * 31, "a" * 32,
    "eth0", "lo", "172.30.7.0/24", "10.0.0.0/8", "0.0.0.0/0", "010.0.0.0/24", "fd00::/64", "::ffff:10.0.0.0/120", "::1", "127.0.0.1",
    "172.30.7.1", "172.30.7.10", "172.30.7.255", "224.0.0.1", "fe80::1%eth0", "web", "db", "tcp", "udp", "any", "*.a", "*", "a.b", '" }',
    "} drop; #", "$(id)", "\u0430", "\u0661", [], [[]], ["web", "172.30.7.12"], [["web", "172.30.7.12"]], [["", 8081, "tcp", "web", 80]],
    [["a.org", "tcp", 80, 80]], {}, {"a": 1}, 65535, 65536, 1280, 9000, 86400, 1023, 1024,
]  # fmt: skip


class BrokenPromiseError(Exception):
    """A promise of the helper that a frame broke."""


class Wire:
    """Has the calls of a connected socket that a session makes; the peer has sent everything, and reads everything."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self._at = 0
        self.answers: list[bytes] = []
        self._credentials = struct.pack("iII", 4242, 1000, 1000)

    def getsockopt(self, *_: object) -> bytes:
        return self._credentials

    def settimeout(self, _seconds: float | None) -> None: ...

    def recvmsg(self, size: int, _room: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        part = self._sent[self._at : self._at + size]
        self._at += len(part)
        return part, [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, self._credentials)] if part else [], 0, None

    def sendall(self, frame: bytes) -> None:
        self.answers.append(frame)

    def fileno(self) -> int:
        return -1

    def close(self) -> None: ...


def perform(uid: int, request: Request, _connection: int) -> Done:
    """Succeeds, and raises BrokenPromiseError for what should not have come this far."""
    owner = policy.subject(uid, request)
    for text in (request.install, request.environment, request.network, request.vm):
        if not re.fullmatch(r"[a-z0-9-]{0,31}", text):
            raise BrokenPromiseError(f"name {text!r}")
    text = ""
    if request.op is Op.ENSURE_RULES:
        text = nft.ruleset(owner, request)
    elif request.op is Op.ALLOW_ADDRESSES:
        text = nft.allowing(owner.interface, request.name, request.addresses, request.seconds)
    if not HARMLESS.fullmatch(text) or text.count('"') % 2 or text.count("{") != text.count("}"):
        raise BrokenPromiseError(f"rules {text!r}")
    return Done(owner.interface, True)


def frames(seed: int) -> Iterator[bytes]:
    """Payloads without end: messages of the corpus, changed by bytes or by fields."""
    chance = random.Random(seed)
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    messages = [json.loads(raw) for raw in corpus if raw.startswith(b'{"version":1,')]
    while True:
        if chance.random() < 0.5:
            yield _changed_bytes(chance, bytearray(chance.choice(corpus)))
        else:
            yield json.dumps(
                _changed_fields(chance, chance.choice(messages)), ensure_ascii=chance.random() < 0.5
            ).encode()


def _changed_bytes(chance: random.Random, raw: bytearray) -> bytes:
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(5):
            case 0:
                raw[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del raw[at : at + chance.randint(1, 16)]
            case 2:
                raw[at:at] = json.dumps(chance.choice(INTERESTING)).encode()
            case 3:
                start = chance.randrange(len(raw) + 1)
                raw[at:at] = raw[start : start + chance.randint(1, 64)]
            case 4:
                raw[at:at] = chance.choice((b"[", b"{", b'"', b"\\", b"\xff", b"\xed\xa0\x80", b"e9", b".5", b"-"))
    return bytes(raw) or b"\0"


def _changed_fields(chance: random.Random, message: dict[str, object]) -> dict[str, object]:
    changed = dict(message)
    changed["id"] = str(chance.randrange(10**9))
    arguments = changed["args"]
    assert isinstance(arguments, dict)
    changed["args"] = arguments = dict(arguments)
    for _ in range(chance.randint(0, 2)):
        where = arguments if chance.random() < 0.8 else changed
        name = chance.choice(list(where))
        found = where[name]
        if isinstance(found, list) and found and chance.random() < 0.7:
            where[name] = _changed_list(chance, found)
        elif chance.random() < 0.1:
            del where[name]
        elif chance.random() < 0.1:
            where[f"{name}x"] = found
        else:
            where[name] = chance.choice(INTERESTING)
        if not arguments or "args" not in changed:
            break
    return changed


def _changed_list(chance: random.Random, found: list[object]) -> list[object]:
    at = chance.randrange(len(found))
    item = found[at]
    if isinstance(item, list) and item and chance.random() < 0.8:
        changed: object = _changed_list(chance, item)
    else:
        changed = chance.choice(INTERESTING)
    return [*found[:at], changed, *found[at + chance.randint(0, 1) :]]


def on_a_wire(payloads: list[bytes]) -> list[bytes]:
    """The answers to payloads on one connection."""
    wire = Wire(b"".join(HEADER.pack(len(payload)) + payload for payload in payloads))
    Session(wire, replays=REPLAYS, stopping=threading.Event(), idle=None, perform=perform).serve()  # type: ignore[arg-type]
    return wire.answers


def on_a_socket(payloads: list[bytes]) -> list[bytes]:
    """The same over a real socket."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    session = Session(theirs, replays=REPLAYS, stopping=threading.Event(), idle=None, perform=perform)
    thread = threading.Thread(target=session.serve)
    thread.start()
    answers = []
    with ours, ours.makefile("rb") as stream:
        for payload in payloads:
            ours.sendall(HEADER.pack(len(payload)) + payload)
            header = stream.read(HEADER.size)
            answers.append(header + stream.read(*HEADER.unpack(header)))
    thread.join()
    return answers


REPLAYS = Replays()


def judge(payload: bytes, frame: bytes) -> str:
    """What came of a frame; BrokenPromiseError if the answer is none, or tells of a failure, of which the fake has none."""
    if HEADER.unpack(frame[: HEADER.size])[0] != len(frame) - HEADER.size:
        raise BrokenPromiseError(f"{payload!r}: an answer of another length than it says")
    try:
        outcome = decode_answer(frame[HEADER.size :]).outcome
    except Refusal as problem:
        raise BrokenPromiseError(f"{payload!r}: an answer that is none: {problem}") from None
    if not isinstance(outcome, Refusal):
        return "done"
    if outcome.code is Code.FAILED or outcome.code.closes:
        raise BrokenPromiseError(f"{payload!r}: {outcome.code}: {outcome.message}")
    return str(outcome.code)


def run(count: int, seed: int) -> Counter[str]:
    """Feeds so many frames; what came of them, by code. Raises BrokenPromiseError."""
    outcomes: Counter[str] = Counter()
    made = frames(seed)
    for batch in range((count + BATCH - 1) // BATCH):
        payloads = [next(made)[:MAX_FRAME] for _ in range(min(BATCH, count - batch * BATCH))]
        answers = (on_a_socket if batch % ON_A_SOCKET == 0 else on_a_wire)(payloads)
        if len(answers) != len(payloads):
            raise BrokenPromiseError(f"{len(payloads)} frames, {len(answers)} answers")
        for payload, answer in zip(payloads, answers, strict=True):
            outcomes[judge(payload, answer)] += 1
    return outcomes


def memory() -> float:
    """The most memory that this process ever had, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sink = os.open(os.devnull, os.O_WRONLY)
    audit._STDERR = sink
    before = len(os.listdir("/proc/self/fd"))
    start = time.monotonic()
    try:
        outcomes = run(options.frames, options.seed)
    except BrokenPromiseError as problem:
        print(f"broken: {problem}", file=sys.stderr)
        return 1
    took = time.monotonic() - start
    after, most = len(os.listdir("/proc/self/fd")), memory()
    print(f"{sum(outcomes.values())} frames, seed {options.seed}: {dict(sorted(outcomes.items()))}")
    print(
        f"{options.frames / took:.0f} frames a second; descriptors {before} before, {after} after; at most {most:.1f} MiB"
    )
    return int(after != before or most > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
