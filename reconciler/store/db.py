"""The one door to sqlite: opening, migrating, transactions.

WAL mode, so that readers never wait for the writer; FULL synchronisation, so that an intent is on disk before
its side effect is tried (I3). Migrations go forward only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.lib.errors import BangerError, ErrorClass

_MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('install', lower(hex(randomblob(6))));
    CREATE TABLE environments (
        name TEXT PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL, desired TEXT NOT NULL,
        applied_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE networks (
        environment TEXT NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL, PRIMARY KEY (environment, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE vms (
        environment TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,
        created TEXT NOT NULL, booted TEXT NOT NULL, address TEXT, forwards TEXT NOT NULL,
        created_at REAL NOT NULL, started_at REAL, ready_at REAL, PRIMARY KEY (environment, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE intents (
        id INTEGER PRIMARY KEY, operation TEXT NOT NULL, environment TEXT NOT NULL, step TEXT NOT NULL,
        action TEXT NOT NULL, begun_at REAL NOT NULL, ended_at REAL, result TEXT, error TEXT
    ) STRICT;
    """,
    """
    ALTER TABLE vms ADD COLUMN halted TEXT;
    ALTER TABLE vms ADD COLUMN condemned TEXT;
    ALTER TABLE vms ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE environments ADD COLUMN generation INTEGER NOT NULL DEFAULT 1 CHECK (generation >= 1);
    -- AUTOINCREMENT: an id that was seen never comes again, even if all events are gone.
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, operation TEXT NOT NULL, environment TEXT NOT NULL,
        object TEXT NOT NULL, warning INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_environment ON events (environment, id);
    -- An empty vm means the whole environment.
    CREATE TABLE pauses (
        environment TEXT NOT NULL, vm TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (environment, vm)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE approvals (
        environment TEXT NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (environment, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sources (
        path TEXT PRIMARY KEY, environment TEXT, problem TEXT, since REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE transitions (
        environment TEXT NOT NULL, object TEXT NOT NULL, type TEXT NOT NULL, status TEXT NOT NULL, since REAL NOT NULL,
        PRIMARY KEY (environment, object, type)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- What the cache is to keep whatever its policy says, by kind and name of the entry.
    CREATE TABLE pins (
        kind TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
    -- How many entries of a kind went when; less than none for those that were to go and stayed.
    CREATE TABLE evictions (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, count INTEGER NOT NULL) STRICT;
    """,
)
_KEPT_INTENTS = 10_000


class Database:
    """One connection, shared by threads; every statement runs under its lock.

    Raises BangerError if the file cannot be opened, is no database, or was written by a newer banger.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as problem:
            raise BangerError(f"cannot open the state in {path}: {problem}", hint=_opening_hint(problem)) from None
        try:
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            if self.version > len(_MIGRATIONS):
                raise BangerError(
                    f"{path} was written by a newer banger (schema {self.version}, this one knows {len(_MIGRATIONS)})",
                    hint="upgrade banger",
                )
            if create:
                self._migrate()
        except (sqlite3.Error, OSError) as problem:
            self.close()
            raise BangerError(f"cannot open the state in {path}: {problem}", hint=_opening_hint(problem)) from None
        except BangerError:
            self.close()
            raise

    @property
    def version(self) -> int:
        """The schema of the file; 0 while nothing is in it, as when its maker was killed at once."""
        with self._lock:
            return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @property
    def data_version(self) -> int:
        """Changes with what other connections commit, of whatever process; not with what this one does. Cheap."""
        with self._lock:
            return int(self._translate("PRAGMA data_version", ()).fetchone()[0])

    @property
    def current(self) -> bool:
        """Whether every table is there. Not in a file that an older banger wrote, until the next writer opens it."""
        return self.version == len(_MIGRATIONS)

    def migrate(self) -> None:
        """Brings an opened file to the present schema. For the holder of the writer lock. Raises BangerError."""
        try:
            with self._lock:
                self._migrate()
        except sqlite3.Error as problem:
            raise BangerError(
                f"cannot open the state in {self._path}: {problem}", hint=_opening_hint(problem)
            ) from None

    def _migrate(self) -> None:
        version = self.version
        if version == len(_MIGRATIONS):
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            # One transaction for the script and its number: killed in the middle, it starts over.
            try:
                self._connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
            except sqlite3.Error:
                self._roll_back()
                raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside happen, or none does. May be nested; the outermost one counts."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._translate("BEGIN IMMEDIATE", ())
            try:
                yield
                self._translate("COMMIT", ())
            except BaseException:
                self._roll_back()
                raise

    def execute(self, statement: str, *values: Any) -> int:
        """Runs a writing statement; returns the id of a row it inserted (else 0)."""
        with self._lock:
            return self._translate(statement, values).lastrowid or 0

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._translate(statement, values).fetchall()

    def _translate(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.OperationalError as problem:
            busy = "locked" in str(problem) or "busy" in str(problem)
            raise BangerError(
                f"the state in {self._path} cannot be used: {problem}",
                hint="is the disk full, or the folder read-only?",
                error_class=ErrorClass.RETRYABLE if busy else ErrorClass.TERMINAL,
            ) from None
        except sqlite3.DatabaseError as problem:
            raise BangerError(
                f"the state in {self._path} is damaged: {problem}", hint="restore it from a backup"
            ) from None

    def _roll_back(self) -> None:
        # sqlite rolls back by itself when the disk is full; and a commit that fails leaves the transaction open, in
        # which all that comes later would be lost.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def prune_intents(self) -> None:
        """Keeps the newest finished intents only."""
        self.execute(
            "DELETE FROM intents WHERE ended_at IS NOT NULL AND id <= (SELECT max(id) FROM intents) - ?", _KEPT_INTENTS
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _opening_hint(problem: Exception) -> str:
    text = str(problem)
    if isinstance(problem, OSError) or "unable to open" in text or "readonly" in text:
        # Reading needs it too: in WAL mode there are two more files, which all connections share.
        return "may this user write to it, and to its folder?"
    if isinstance(problem, sqlite3.OperationalError):
        return "is the disk full, or is another program using it?"
    return "restore the file from a backup, or move it away to begin with an empty inventory"
