"""What people note about an atlas: stars and words on concepts, and selections with names, in a SQLite file beside it.

The atlas itself stays as it is, so that notes survive a new atlas of the same concepts and need no new checksums.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from engine.errors import BlindspotError

MARK = 0x42_41_4E_54
"""SQLite's application id of a file of notes."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS concepts (concept INTEGER PRIMARY KEY, starred INTEGER NOT NULL, note TEXT NOT NULL,
                                     at REAL);
CREATE TABLE IF NOT EXISTS selections (name TEXT PRIMARY KEY, query TEXT NOT NULL, at REAL);
"""
LONGEST_NOTE, LONGEST_NAME, LONGEST_QUERY = 2000, 60, 20_000
MOST_SELECTIONS = 100
PATIENCE = 10.0
"""Seconds to wait for another process's change."""


class ConceptNote(NamedTuple):
    """What is noted of one concept."""

    starred: bool = False
    note: str = ""


class Notes:
    """The notes of an atlas; any number of processes may read and change them, each change is one transaction.

    Parameters
    ----------
    atlas
        The atlas's folder; the file is `ATLAS.notes.sqlite` beside it, made by the first change.
    """

    def __init__(self, atlas: Path) -> None:
        self.path = atlas.with_name(f"{atlas.name}.notes.sqlite")

    def concept(self, concept: int) -> ConceptNote:
        """What is noted of a concept."""
        with self._reading() as database:
            rows = database.execute("SELECT starred, note FROM concepts WHERE concept = ?", (concept,)).fetchall()
        return ConceptNote(bool(rows[0][0]), str(rows[0][1])) if rows else ConceptNote()

    def starred(self) -> list[int]:
        """Starred concepts, ascending."""
        with self._reading() as database:
            rows = database.execute("SELECT concept FROM concepts WHERE starred ORDER BY concept").fetchall()
        return [int(row[0]) for row in rows]

    def write(self, concept: int, noted: ConceptNote) -> None:
        """Put down what is noted of a concept; nothing takes its row away.

        Raises
        ------
        BlindspotError
            If the note is too long, or the file cannot be written.
        """
        if len(noted.note) > LONGEST_NOTE:
            raise BlindspotError(f"A note has {len(noted.note):,} characters: keep it below {LONGEST_NOTE:,}.")
        with self._writing() as database:
            if noted == ConceptNote():
                database.execute("DELETE FROM concepts WHERE concept = ?", (concept,))
                return
            row = (concept, int(noted.starred), noted.note, time.time())
            database.execute("INSERT OR REPLACE INTO concepts VALUES (?, ?, ?, ?)", row)

    def selections(self) -> dict[str, str]:
        """Kept selections by name, the last one first: the query string of each."""
        with self._reading() as database:
            rows = database.execute("SELECT name, query FROM selections ORDER BY at DESC").fetchall()
        return {str(name): str(query) for name, query in rows}

    def keep(self, name: str, query: str) -> None:
        """Keep a selection under a name, in place of an earlier one of that name.

        Raises
        ------
        BlindspotError
            If it has no name or too long a one, there are too many, or the file cannot be written.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise BlindspotError(f"A selection needs a name of 1 to {LONGEST_NAME} characters.")
        if len(query) > LONGEST_QUERY:
            raise BlindspotError("The selection is too large to be kept: narrow it.")
        with self._writing() as database:
            others = database.execute("SELECT count(*) FROM selections WHERE name != ?", (name,)).fetchone()[0]
            if others >= MOST_SELECTIONS:
                raise BlindspotError(f"{MOST_SELECTIONS} selections are kept already: remove one first.")
            database.execute("INSERT OR REPLACE INTO selections VALUES (?, ?, ?)", (name, query, time.time()))

    def drop(self, name: str) -> None:
        """Forget a kept selection."""
        with self._writing() as database:
            database.execute("DELETE FROM selections WHERE name = ?", (name,))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The file as it is; an empty one where there is none, so that looking makes no file."""
        with self._explained():
            there = self._is_there()
            source = f"{self.path.absolute().as_uri()}?mode=ro" if there else ":memory:"
            with closing(sqlite3.connect(source, uri=there, timeout=PATIENCE)) as database:
                if there:
                    self._check(database)
                else:
                    database.executescript(SCHEMA)
                yield database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            there = self._is_there()
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as database, database:
                if there:
                    self._check(database)
                else:
                    database.executescript(f"PRAGMA application_id = {MARK};{SCHEMA}")
                yield database

    def _is_there(self) -> bool:
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise BlindspotError(f"{self.path} is a link or no regular file: move it away to keep notes.")
        return self.path.exists() and self.path.stat().st_size > 0

    def _check(self, database: sqlite3.Connection) -> None:
        if database.execute("PRAGMA application_id").fetchone()[0] != MARK:
            raise BlindspotError(f"{self.path} is no file of notes: move it away.")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise BlindspotError(f"Notes cannot be read from or written to {self.path}: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise BlindspotError(f"{self.path} is no file of notes ({error}): move it away.") from error
