"""The database: migrations, kills, damage, several processes at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.store import db as module
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "banger.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    made = Database(path, create=True)
    yield made
    made.close()


def names(database: Database) -> list[str]:
    return [row["name"] for row in database.rows("SELECT name FROM environments ORDER BY name")]


def add(database: Database, name: str) -> None:
    database.execute("INSERT INTO environments VALUES (?, '', '', '{}', 0.0, 1)", name)


def test_reading_creates_no_file(path: Path) -> None:
    with pytest.raises(BangerError, match="cannot open the state"):
        Database(path, create=False)
    assert not path.parent.exists()


def test_the_install_id_is_random_and_lasts(path: Path, tmp_path: Path) -> None:
    found = set()
    for _ in range(3):
        database = Database(path, create=True)
        found.add(Inventory(database).install)
        database.close()
    (install,) = found
    assert len(install) == 12 and int(install, 16) >= 0
    other = Database(tmp_path / "other.db", create=True)
    assert Inventory(other).install != install
    other.close()


def test_an_empty_file_is_no_state_until_a_writer_makes_it_one(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    reader = Database(path, create=False)
    assert reader.version == 0 and path.stat().st_size == 0
    reader.migrate()
    assert reader.version == len(module._MIGRATIONS) and len(Inventory(reader).install) == 12
    reader.close()


def test_migrations_run_in_order_and_once(path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add(database, "kept")
    database.close()
    column, table = "ALTER TABLE environments ADD COLUMN color TEXT;", "CREATE TABLE later (x TEXT) STRICT;"
    more = (*module._MIGRATIONS, column, table)
    monkeypatch.setattr(module, "_MIGRATIONS", more)
    for _ in range(2):
        newer = Database(path, create=True)
        assert newer.version == len(more) and names(newer) == ["kept"]
        assert newer.rows("SELECT color FROM environments")[0]["color"] is None
        newer.close()


def test_a_migration_that_fails_leaves_the_schema_before_it(
    path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, "kept")
    database.close()
    broken = "CREATE TABLE later (x TEXT) STRICT; INSERT INTO nowhere VALUES (1);"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MIGRATIONS", (*module._MIGRATIONS, broken))
        with pytest.raises(BangerError, match="cannot open the state"):
            Database(path, create=True)
    back = Database(path, create=True)
    assert names(back) == ["kept"]
    assert back.rows("SELECT count(*) AS n FROM sqlite_master WHERE name = 'later'")[0]["n"] == 0
    back.close()


def test_a_newer_schema_is_refused_and_not_touched(path: Path, database: Database) -> None:
    database.execute(f"PRAGMA user_version = {len(module._MIGRATIONS) + 1}")
    database.close()
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(BangerError, match="newer banger") as caught:
            Database(path, create=create)
        assert caught.value.hint == "upgrade banger"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage", [b"not a database at all, but long enough to be looked at" * 100, b"SQLite format 3"]
)
def test_a_damaged_file_is_named_and_not_touched(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(BangerError, match="cannot open the state") as caught:
        Database(path, create=True)
    assert "backup" in (caught.value.hint or "")
    assert path.read_bytes() == damage


def test_damage_in_the_middle_is_an_error_and_no_traceback(path: Path, database: Database) -> None:
    for number in range(500):
        add(database, f"environment-{number}")
    database.close()
    data = bytearray(path.read_bytes())
    data[8192 : len(data) // 2] = b"\xff" * (len(data) // 2 - 8192)
    path.write_bytes(data)
    damaged = Database(path, create=True)
    with pytest.raises(BangerError, match=r"damaged|cannot be used"):
        names(damaged)
    damaged.close()


def test_a_transaction_happens_whole_or_not_at_all(database: Database) -> None:
    with pytest.raises(RuntimeError), database.transaction():
        add(database, "a")
        with database.transaction():
            add(database, "b")
        raise RuntimeError
    assert names(database) == []
    with database.transaction():
        add(database, "c")
    assert names(database) == ["c"]


def test_a_full_disk_fails_what_did_not_fit_and_nothing_else(database: Database) -> None:
    add(database, "before")
    pages = database.rows("PRAGMA page_count")[0][0]
    database.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(BangerError, match="full") as caught, database.transaction():
        for number in range(1000):
            add(database, f"{number:0500}")
    assert caught.value.error_class is ErrorClass.TERMINAL
    database.execute("PRAGMA max_page_count = 1000000")
    add(database, "after")
    assert names(database) == ["after", "before"]


def test_a_commit_that_fails_does_not_swallow_what_comes_later(
    path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Database._translate

    def failing(self: Database, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        if statement == "COMMIT":
            raise BangerError("the disk is full")
        return real(self, statement, values)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_translate", failing)
        with pytest.raises(BangerError, match="full"), database.transaction():
            add(database, "lost")
    with database.transaction():
        add(database, "later")
    other = Database(path, create=False)
    assert names(other) == ["later"]
    other.close()


def child(path: Path, code: str) -> subprocess.Popen[str]:
    """Another process with the database `d`; it says "ready" when the test may go on, and waits for a line."""
    program = f"""
import sys
from pathlib import Path
from reconciler.store.db import Database
d = Database(Path({str(path)!r}), create=True)
def add(name): d.execute("INSERT INTO environments VALUES (?, '', '', '{{}}', 0.0, 1)", name)
def pause():
    print("ready", flush=True)
    sys.stdin.readline()
{code}
"""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_killed_in_the_middle_of_a_transaction(path: Path, database: Database) -> None:
    """I3."""
    with child(path, "add('a')\nwith d.transaction():\n    add('b'); pause()") as process:
        assert read_line(process) == "ready"
        assert names(database) == ["a"], "readers do not wait for the writer, and do not see what may never be"
        process.send_signal(signal.SIGKILL)
    assert names(database) == ["a"]
    add(database, "c")
    assert names(database) == ["a", "c"]


def test_killed_in_the_middle_of_a_migration(path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from reconciler.store import db
db._MIGRATIONS = (db._MIGRATIONS[0] + "SELECT kill();",)
import sqlite3
real = sqlite3.connect
def connect(*a, **k):
    c = real(*a, **k)
    c.create_function("kill", 0, lambda: os.kill(os.getpid(), 9))
    return c
sqlite3.connect = connect
db.Database(Path({str(path)!r}), create=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -signal.SIGKILL and path.exists()
    reader = Database(path, create=False)
    assert reader.version == 0
    reader.close()
    back = Database(path, create=True)
    assert names(back) == [] and len(Inventory(back).install) == 12
    back.close()


def test_two_writers_take_turns(path: Path, database: Database) -> None:
    with child(path, "with d.transaction():\n    add('a'); pause()\nprint('done', flush=True)") as process:
        assert read_line(process) == "ready"
        database._connection.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(BangerError, match="locked") as caught, database.transaction():
            add(database, "b")
        assert caught.value.error_class is ErrorClass.RETRYABLE
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert read_line(process) == "done"
    with database.transaction():
        add(database, "b")
    assert names(database) == ["a", "b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
@pytest.mark.parametrize("create", [True, False])
def test_a_folder_that_may_not_be_written(create: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "banger.db"
        Database(path, create=True).close()
        path.chmod(0o644)
        child = os.fork()
        if child == 0:
            os._exit(_open_as_nobody(path, create=create))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _open_as_nobody(path: Path, *, create: bool) -> int:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        names(Database(path, create=create))
    except BangerError as problem:
        return 0 if "write" in (problem.hint or "") else 2
    except BaseException:
        return 3
    return 1


def test_finished_intents_are_pruned_and_open_ones_are_not(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_INTENTS", 3)
    insert = (
        "INSERT INTO intents (operation, environment, step, action, begun_at, ended_at) VALUES ('', '', ?, '{}', 0, ?)"
    )
    for number in range(10):
        database.execute(insert, str(number), None if number == 0 else 1.0)
    database.prune_intents()
    assert [row["step"] for row in database.rows("SELECT step FROM intents ORDER BY id")] == ["0", "7", "8", "9"]
