"""The answers of readers, kept in one SQLite file: none is paid twice, whenever a run is killed.

A call is noted before it is sent, and its note goes together with the answer's arrival, in one transaction. What a
killed run leaves is therefore either an answer or a note. A note without an answer is a call that may have been paid
(whether the endpoint got it cannot be known from here): it counts as lost, and is sent again only when told so.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import BlindspotError
from engine.readers.base import Answer, Status

TABLES = """
    CREATE TABLE IF NOT EXISTS answers (
        key TEXT PRIMARY KEY, reader TEXT NOT NULL, protocol TEXT NOT NULL, status TEXT NOT NULL, value TEXT,
        reason TEXT, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS sent (key TEXT PRIMARY KEY);
"""
KEPT = (Status.ANSWERED, Status.REFUSED, Status.MALFORMED)
"""What was paid for, so that it is kept."""


def answers_file(atlas: Path) -> Path:
    """Where the answers about an atlas are kept: beside it."""
    return atlas.with_name(f"{atlas.name}.answers.sqlite")


class AnswerCache:
    """Answers by the hash of their question (`engine.readers.base.question_key`); any thread may ask.

    Parameters
    ----------
    path
        The file; None keeps them in memory.

    Raises
    ------
    BlindspotError
        If the file cannot be opened or is no such cache.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self._lock = path, threading.Lock()
        with self._explained():
            self._database = sqlite3.connect(path or ":memory:", timeout=30, check_same_thread=False)
            self._database.executescript(TABLES)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs from asking meanwhile; the system frees the lock when the process dies.

        Raises
        ------
        BlindspotError
            If another run holds it.
        """
        if self.path is None:
            yield
            return
        lock = self.path.with_name(f"{self.path.name}.lock")
        with open(lock, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlindspotError(f"Another run is asking a reader and writes {self.path}: wait for it.") from None
            yield

    def get(self, key: str) -> Answer | None:
        """The answer that was paid for, or None."""
        row = self._run(
            "SELECT status, value, reader, reason, tokens_in, tokens_out FROM answers WHERE key = ?", key
        ).fetchone()
        if row is None:
            return None
        status, value, reader, reason, tokens_in, tokens_out = row
        return Answer(Status(status), json.loads(value) if value else None, reader, reason, True, tokens_in, tokens_out)

    def lost(self, key: str) -> bool:
        """Whether a call was noted and never came back."""
        return self._run("SELECT 1 FROM sent WHERE key = ?", key).fetchone() is not None

    def note(self, key: str) -> None:
        """Note that a call is about to be sent."""
        self._run("INSERT OR IGNORE INTO sent VALUES (?)", key)

    def unnote(self, key: str) -> None:
        """Take the note back: the call was not paid, or was told to have failed."""
        self._run("DELETE FROM sent WHERE key = ?", key)

    def put(self, key: str, protocol: str, answer: Answer) -> None:
        """Keep an answer, and take its note back in the same transaction."""
        value = json.dumps(answer.value, ensure_ascii=False) if answer.value is not None else None
        row = (key, answer.reader, protocol, answer.status, value, answer.reason, answer.tokens_in, answer.tokens_out)
        with self._lock, self._explained(), self._database:
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._database.execute("DELETE FROM sent WHERE key = ?", (key,))

    def _run(self, statement: str, key: str) -> sqlite3.Cursor:
        with self._lock, self._explained(), self._database:
            return self._database.execute(statement, (key,))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise BlindspotError(f"The answers in {self.path} cannot be read or written: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise BlindspotError(f"{self.path} is no file of answers ({error}): move it away.") from error
