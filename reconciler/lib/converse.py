"""A child that is talked with, line by line, and to or from which another program's output may then flow.

For protocols in which one side waits for the other's answer. Whatever the child does, it is over when the block ends.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.lib import cancel
from reconciler.lib.errors import CancelledError, ErrorClass
from reconciler.lib.run import CommandError, begin, registered

_CHUNK = 1 << 16
_LINE_LIMIT = 1 << 20
_TALK_LIMIT = 1 << 16


class Conversation:
    """The child's stdin and stdout."""

    def __init__(self, argv: Sequence[str], *, limit: int) -> None:
        self.argv = tuple(argv)
        self._child = begin(list(argv), stdin=True)
        self._left = limit
        self._buffer = b""
        self._talk = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def say(self, *lines: str) -> None:
        """Sends lines. A child that does not listen any more is told of by the next `line`."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
            self._child.stdin.flush()
        except BrokenPipeError:
            pass

    def line(self) -> str:
        """The next line of its output, without its end. CommandError if it ends instead, or says too much."""
        assert self._child.stdout is not None
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_LIMIT or self._left <= 0:
                raise self._error("said more than it may")
            more = os.read(self._child.stdout.fileno(), _CHUNK)
            if not more:
                self._finish()
                raise self._error("ended in the middle of a conversation")
            self._left -= len(more)
            self._buffer += more
        raw, _, self._buffer = self._buffer.partition(b"\n")
        return raw.decode("utf-8", "surrogateescape")

    def pour(self, argv: Sequence[str | Path], *, input: bytes, env: Mapping[str, str | None] | None = None) -> None:
        """Runs another program whose output goes straight to the child, which then gets no more input.

        Raises CommandError if the program fails; what the child makes of it, its next lines say.
        """
        assert self._child.stdin is not None
        source = begin([str(word) for word in argv], env=env, stdin=True, stdout=self._child.stdin.fileno())
        with registered(source):
            self._child.stdin.close()
            _, words = source.communicate(input)
        if cancel.cancelled():
            raise CancelledError
        # SIGPIPE: the child has ended, and its last line says why.
        if source.returncode not in (0, -13, 128 + 13):
            text = words.decode("utf-8", "replace")
            raise CommandError(f"{argv[0]} failed", [str(word) for word in argv], source.returncode, text)

    def drain(self, argv: Sequence[str | Path], *, most: int, env: Mapping[str, str | None] | None = None) -> bytes:
        """Runs another program that gets the rest of the child's output, and returns what it prints.

        most: bytes; a child that sends more is ended. Raises CommandError if the program or the child fails.
        """
        assert self._child.stdout is not None
        words = [str(word) for word in argv]
        sink = begin(words, env=env, stdin=True)
        answer: list[bytes] = []
        with registered(sink):
            # Both of its outputs are read while it works: whatever it prints, it never waits for us.
            assert sink.stdin is not None
            reader = threading.Thread(target=lambda: answer.extend(_both(sink.stdout, sink.stderr)), daemon=True)
            reader.start()
            try:
                sent = len(self._buffer)
                sink.stdin.write(self._buffer)
                self._buffer = b""
                while more := os.read(self._child.stdout.fileno(), _CHUNK):
                    sent += len(more)
                    if sent > most:
                        raise self._error(f"sent more than {most} bytes")
                    sink.stdin.write(more)
                sink.stdin.close()
            except BrokenPipeError:
                pass
            code = sink.wait()
            reader.join()
        self._finish()
        if cancel.cancelled():
            raise CancelledError
        if self._child.returncode:
            raise self._error(f"failed with exit code {self._child.returncode}")
        if code:
            raise CommandError(f"{words[0]} failed", words, code, answer[1].decode("utf-8", "replace"))
        return answer[0]

    def close(self) -> None:
        """Ends it in order: without input, it is to end by itself."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            pass
        self._finish()

    def _finish(self) -> None:
        try:
            self._child.wait(timeout=10)
        except Exception:
            self._child.kill()
            self._child.wait()
        self._listener.join(timeout=1)

    def _listen(self) -> None:
        assert self._child.stderr is not None
        while more := os.read(self._child.stderr.fileno(), _CHUNK):
            self._talk = (self._talk + more)[-_TALK_LIMIT:]

    def _error(self, what: str) -> CommandError:
        if cancel.cancelled():
            raise CancelledError
        return CommandError(
            f"{self.argv[0]} {what}",
            self.argv,
            self._child.returncode,
            self._talk.decode("utf-8", "replace"),
            replay=shlex.join(self.argv[:-1]),
            error_class=ErrorClass.RETRYABLE,
        )


def _both(out: object, err: object) -> list[bytes]:
    texts: list[bytes] = [b"", b""]

    def read(index: int, stream: object) -> None:
        texts[index] = stream.read()  # type: ignore[attr-defined]  # a pipe of subprocess

    other = threading.Thread(target=read, args=(1, err), daemon=True)
    other.start()
    read(0, out)
    other.join()
    return texts


@contextmanager
def converse(argv: Sequence[str], *, limit: int = 64 << 20) -> Iterator[Conversation]:
    """Starts a child to talk with. limit: bytes of lines that are read from it at most."""
    conversation = Conversation(argv, limit=limit)
    with registered(conversation._child):
        yield conversation
        conversation.close()
