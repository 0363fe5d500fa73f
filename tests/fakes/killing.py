"""Ends a process at a chosen change to the file system or the inventory, as `kill -9` would."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reconciler.store.db import Database
from reconciler.store.inventory import Inventory

KILLED = 9
_CHANGES = frozenset({"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate"})
_RECORDS = ("put_vm", "drop_vm", "put_network", "drop_network")
_WRITES = ("INSERT", "UPDATE", "DELETE")
_point: Callable[[], None] | None = None
_seen: Callable[[], int] | None = None
_effects: list[int] = []


def run_killed_at(number: int, work: Callable[[], None], *, commits: bool = False) -> bool:
    """Runs `work` in a child that ends just before its change `number`, counted from 0; whether it came that far.

    Counts what Python's audit events call a change of the file system, files opened for writing, both sides of each
    `effect`, and the moments before and after each change of the inventory. `work` opens its own database: a
    connection does not survive fork(2).

    Parameters
    ----------
    commits: count both sides of everything that lasts in the database instead, whatever it is about.
    """
    child = os.fork()
    if child == 0:
        status = 70
        try:
            _arm(number, commits)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(ended)
    assert code in (0, KILLED), f"the child failed with {code}"
    return code == KILLED


def count_changes(work: Callable[[], None]) -> tuple[int, list[int]]:
    """How many changes `run_killed_at` would count with `commits`, and which of them are those of effects."""
    reader, writer = os.pipe()

    def counted() -> None:
        work()
        assert _seen is not None
        os.write(writer, json.dumps([_seen(), _effects]).encode())

    try:
        assert not run_killed_at(sys.maxsize, counted, commits=True)
        total, effects = json.loads(os.read(reader, 1 << 16))
        return total, effects
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def effect(lasting: Callable[[], None]) -> Iterator[None]:
    """A side effect outside of the file system, with a point on either side. `lasting` makes it outlive the process."""
    _pass()
    yield
    lasting()
    _pass()


def _pass() -> None:
    if _point is not None and _seen is not None:
        _effects.append(_seen())
        _point()


def _arm(number: int, commits: bool) -> None:
    global _point, _seen  # of this child alone
    seen = 0

    def count() -> None:
        nonlocal seen
        if seen == number:
            os._exit(KILLED)
        seen += 1

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)):
            count()

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            count()
            result = real(*args, **named)
            count()
            return result

        return called

    if commits:
        _count_commits(around)
    else:
        for name in _RECORDS:
            setattr(Inventory, name, around(getattr(Inventory, name)))
    _point, _seen = count, lambda: seen
    sys.addaudithook(audit)


def _count_commits(around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Every statement passes through one method; those that last at once are commits, and writes by themselves."""
    plain = Database._translate
    counted = around(plain)

    def translate(database: Database, statement: str, values: tuple[Any, ...]) -> Any:
        alone = not database._connection.in_transaction and statement.startswith(_WRITES)
        return (counted if alone or statement == "COMMIT" else plain)(database, statement, values)

    Database._translate = translate  # type: ignore[method-assign,assignment]  # in this child alone
    Database._migrate = around(Database._migrate)  # type: ignore[method-assign]  # likewise
