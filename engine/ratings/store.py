"""A rating study on disk: one SQLite file with its items, their images and what every rater said.

Any number of processes may rate at once: each rating is one transaction, on disk when the call returns. Items are known
to browsers by random tokens alone, and their order depends on the study's seed and the rater's name.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from engine.errors import BlindspotError
from engine.files import write_whole
from engine.ratings.protocols import MOST_CONCEPTS, PROTOCOLS, Rating, RatingProtocol

SUFFIX, FOLDER = ".sqlite", ".ratings"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""What a study may be called."""
LONGEST_RATER = 40
MARK = 0x42_41_52_53
"""SQLite's application id of a study."""
FORMAT = 1
PATIENCE = 30.0
"""Seconds that a process waits for another one's transaction."""
SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (item INTEGER PRIMARY KEY, token TEXT UNIQUE NOT NULL, unit TEXT NOT NULL, groups TEXT NOT NULL,
                    content TEXT NOT NULL, facts TEXT NOT NULL, image BLOB NOT NULL);
CREATE TABLE raters (rater TEXT PRIMARY KEY, kind TEXT NOT NULL, began REAL NOT NULL);
CREATE TABLE ratings (rater TEXT NOT NULL REFERENCES raters, item INTEGER NOT NULL REFERENCES items,
                      value TEXT NOT NULL, note TEXT NOT NULL, seconds REAL, at REAL NOT NULL,
                      PRIMARY KEY (rater, item));
"""


class Group(NamedTuple):
    """What an item stands for, which no rater sees before the end."""

    method: str
    """The method that drew it, or the model or source that an image belongs to."""
    kind: str
    """`concept` or `neuron`; `high divergence` or `random`; `real` or `drawn`."""


@dataclass(frozen=True)
class Item:
    """One thing to rate."""

    unit: str
    """The concept or image that it is of; what several methods share."""
    groups: tuple[Group, ...]
    content: Mapping[str, Any]
    """What is shown beside the image: `caption`, or `concepts` (label and strength each)."""
    facts: Mapping[str, Any]
    """What the report needs and nobody is shown, such as `concepts` (their ids)."""
    image: bytes
    """WebP, without metadata."""


class Shown(NamedTuple):
    """What a rater is shown of an item."""

    token: str
    content: Mapping[str, Any]
    before: Rating | None
    """What this rater said of it before."""


class RaterProgress(NamedTuple):
    """How far a rater is."""

    rater: str
    kind: str
    """`person` or `reader`."""
    done: int


def studies_folder(atlas: Path) -> Path:
    """Return the folder beside an atlas that holds its studies."""
    return atlas.with_name(f"{atlas.name}{FOLDER}")


def find_studies(atlas: Path) -> list[str]:
    """Return the names of the studies beside an atlas."""
    files = studies_folder(atlas).glob(f"*{SUFFIX}")
    return sorted(path.stem for path in files if NAME.fullmatch(path.stem) and path.is_file())


def answers_of(study: Path) -> Path:
    """Return where readers' answers about a study are kept: with the atlas's own, or beside a study elsewhere."""
    from engine.readers.cache import answers_file

    folder = study.absolute().parent
    if folder.name.endswith(FOLDER):
        return answers_file(folder.with_name(folder.name.removesuffix(FOLDER)))
    return study.with_suffix(".answers")


def free_file(folder: Path, protocol: str, name: str | None = None) -> Path:
    """Return where a study of this name goes; without a name, of the protocol's with the next free number.

    Raises
    ------
    BlindspotError
        If a study cannot be called so.
    """
    if name is not None:
        if not NAME.fullmatch(name):
            raise BlindspotError(f"{name[:60]!r} cannot be a study's name: use letters, digits, dots and dashes.")
        return folder / f"{name}{SUFFIX}"
    number = 1
    while (folder / f"{protocol}-{number}{SUFFIX}").exists():
        number += 1
    return folder / f"{protocol}-{number}{SUFFIX}"


def create_study(
    path: Path, protocol: str, items: Sequence[Item], origin: Mapping[str, Any], seed: int = 0
) -> RatingStudy:
    """Write a study's file.

    Parameters
    ----------
    path
        The file, which must not exist: ratings are never overwritten.
    protocol
        A name of `PROTOCOLS`.
    items
        What to rate.
    origin
        What the study was made from, for the report.
    seed
        Of the order in which each rater sees the items.

    Raises
    ------
    BlindspotError
        If there is such a file, it cannot be written, or its name tells a method.
    """
    name = path.name.removesuffix(SUFFIX)
    if not NAME.fullmatch(name) or not path.name.endswith(SUFFIX):
        raise BlindspotError(f"{name[:60]!r} cannot be a study's name: use letters, digits, dots and dashes.")
    told = {group.method for item in items for group in item.groups if group.method.lower() in name.lower()}
    if told:
        raise BlindspotError(f"The name {name!r} would tell raters of {min(told)!r}: choose another --name.")
    if path.exists():
        raise BlindspotError(f"There is a study at {path} already: choose another --name, or remove it.")
    facts = {
        "format": FORMAT, "protocol": protocol, "seed": seed, "token": secrets.token_hex(8), "origin": dict(origin),
        "created": time.time(), "ended": None,
    }  # fmt: skip

    def write(partial: Path) -> None:
        with closing(sqlite3.connect(partial)) as connection, connection:
            connection.executescript(f"PRAGMA application_id = {MARK};{SCHEMA}")
            connection.executemany(
                "INSERT INTO study VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()]
            )
            rows = [
                (secrets.token_hex(8), item.unit, json.dumps(item.groups), json.dumps(item.content),
                 json.dumps(item.facts), item.image)
                for item in items
            ]  # fmt: skip
            connection.executemany(
                "INSERT INTO items (token, unit, groups, content, facts, image) VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    try:
        write_whole(path, write)
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BlindspotError(f"The study cannot be written to {path}: {reason}; choose another --out.") from error
    return RatingStudy.open(path)


class RatingStudy:
    """A study on disk; open it with `RatingStudy.open`."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.protocol: RatingProtocol = PROTOCOLS[facts["protocol"]]
        self.seed = int(facts["seed"])
        self.token = str(facts["token"])
        self.origin: Mapping[str, Any] = facts["origin"]

    @classmethod
    def open(cls, path: Path) -> RatingStudy:
        """Open a study.

        Raises
        ------
        BlindspotError
            If there is no such file, or it is no study.
        """
        if not path.is_file():
            raise BlindspotError(f"There is no rating study at {path}: make one with `ratings prepare ATLAS`.")
        with _connected(path) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] != MARK:
                raise BlindspotError(f"{path} is no rating study: make one with `ratings prepare ATLAS`.")
            facts = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM study")}
        if facts.get("format") != FORMAT or facts.get("protocol") not in PROTOCOLS:
            raise BlindspotError(f"The study {path} was written by another version: update this program.")
        try:
            return cls(path, facts)
        except (KeyError, TypeError, ValueError) as error:
            raise BlindspotError(f"The study {path} is damaged: prepare it anew.") from error

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.stem

    @property
    def ended(self) -> bool:
        """Whether methods may be shown and nothing is rated any more."""
        with _connected(self.path) as connection:
            return _ended(connection)

    def end(self) -> None:
        """End the study, once and for all."""
        with _connected(self.path, write=True) as connection:
            if not _ended(connection):
                connection.execute("UPDATE study SET value = ? WHERE key = 'ended'", (json.dumps(time.time()),))

    def __len__(self) -> int:
        with _connected(self.path) as connection:
            return connection.execute("SELECT COUNT(*) FROM items").fetchone()[0]

    def progress(self) -> list[RaterProgress]:
        """Return every rater and how many items each has rated, in the order in which they began."""
        query = (
            "SELECT rater, kind, COUNT(item) FROM raters LEFT JOIN ratings USING (rater) GROUP BY rater ORDER BY began"
        )
        with _connected(self.path) as connection:
            return [RaterProgress(*row) for row in connection.execute(query)]

    def spelling(self, name: str) -> str:
        """Return a rater's name as it was first given here, in whatever case it is now."""
        name = rater_name(name)
        folded = {known.rater.casefold(): known.rater for known in self.progress()}
        return folded.get(name.casefold(), name)

    def order(self, rater: str) -> list[str]:
        """Return the tokens of all items in the order in which a rater sees them; the same at every visit."""
        with _connected(self.path) as connection:
            tokens = [row[0] for row in connection.execute("SELECT token FROM items ORDER BY item")]
        digest = hashlib.sha256(rater.encode("utf-8", "backslashreplace")).digest()
        rng = np.random.default_rng([self.seed, *np.frombuffer(digest, np.uint32).tolist()])
        return [tokens[place] for place in rng.permutation(len(tokens))]

    def rated(self, rater: str) -> set[str]:
        """Return the tokens of what a rater has rated."""
        query = "SELECT token FROM ratings JOIN items USING (item) WHERE rater = ?"
        with _connected(self.path) as connection:
            return {row[0] for row in connection.execute(query, (rater,))}

    def show(self, token: str, rater: str) -> Shown:
        """Return what a rater is shown of an item; raises `LookupError` for an unknown token."""
        with _connected(self.path) as connection:
            found = connection.execute("SELECT item, content FROM items WHERE token = ?", (token,)).fetchone()
            if found is None:
                raise LookupError(token)
            query = "SELECT value, note FROM ratings WHERE rater = ? AND item = ?"
            said = connection.execute(query, (rater, found[0])).fetchone()
        return Shown(token, json.loads(found[1]), None if said is None else Rating(_value(said[0]), said[1]))

    def image(self, token: str) -> bytes:
        """Return an item's image (WebP); raises `LookupError` for an unknown token."""
        with _connected(self.path) as connection:
            found = connection.execute("SELECT image FROM items WHERE token = ?", (token,)).fetchone()
        if found is None:
            raise LookupError(token)
        return bytes(found[0])

    def rate(
        self, rater: str, token: str, value: Any, note: Any = "", seconds: float | None = None, kind: str = "person"
    ) -> None:
        """Store what a rater says of an item, in place of what the same rater said before.

        Raises
        ------
        BlindspotError
            If it is no answer of the protocol, the rater has no name, or the study has ended.
        LookupError
            If there is no such item.
        """
        rater = rater_name(rater)
        with _connected(self.path, write=True) as connection:
            if _ended(connection):
                raise BlindspotError(f"The study {self.name} has ended: nothing is rated any more.")
            found = connection.execute("SELECT item, content FROM items WHERE token = ?", (token,)).fetchone()
            if found is None:
                raise LookupError(token)
            listed = min(len(json.loads(found[1]).get("concepts", ())), MOST_CONCEPTS)
            answer = self.protocol.answer(value, note, listed)
            now = time.time()
            connection.execute("INSERT OR IGNORE INTO raters VALUES (?, ?, ?)", (rater, kind, now))
            connection.execute(
                "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?)",
                (rater, found[0], json.dumps(answer.value), answer.note, seconds, now),
            )

    def items(self) -> pd.DataFrame:
        """Return every item: token, unit, groups (of `Group`), content, facts."""
        query = "SELECT token, unit, groups, content, facts FROM items ORDER BY item"
        with _connected(self.path) as connection:
            rows = [
                (token, unit, [Group(*group) for group in json.loads(groups)], json.loads(content), json.loads(facts))
                for token, unit, groups, content, facts in connection.execute(query)
            ]
        return pd.DataFrame(rows, columns=["token", "unit", "groups", "content", "facts"])

    def ratings(self) -> pd.DataFrame:
        """Return every rating: token, rater, rater_kind, value, note, seconds, at (seconds since 1970)."""
        query = (
            "SELECT token, rater, kind, value, note, seconds, at FROM ratings JOIN items USING (item) "
            "JOIN raters USING (rater) ORDER BY rater, at"
        )
        with _connected(self.path) as connection:
            rows = [(*row[:3], _value(row[3]), *row[4:]) for row in connection.execute(query)]
        return pd.DataFrame(rows, columns=["token", "rater", "rater_kind", "value", "note", "seconds", "at"])


def rater_name(name: str) -> str:
    """Return a rater's name in its one spelling; raises `BlindspotError` for none and for one that is too long."""
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_RATER or not name.isprintable():
        raise BlindspotError(f"A rater has a name of 1 to {LONGEST_RATER} letters.")
    return name


def _value(text: str) -> int | str | tuple[int, ...]:
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value


def _ended(connection: sqlite3.Connection) -> bool:
    return json.loads(connection.execute("SELECT value FROM study WHERE key = 'ended'").fetchone()[0]) is not None


@contextmanager
def _connected(path: Path, write: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection of its own, so that any thread and process may ask; what fails is said in one sentence."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(address, timeout=PATIENCE, uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            if not write:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
    except (sqlite3.Error, json.JSONDecodeError) as error:
        raise BlindspotError(f"The study {path} cannot be used: {error}.") from error
