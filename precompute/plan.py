"""Stages that run once: fingerprints say what is done, a lock keeps a second run out, `kill -9` costs one chunk.

A stage owns a folder of the work directory. Its fingerprint is the SHA-256 of its parameters, the contents of what it
reads and the fingerprints of the stages before it. `stage.json` in the folder records the fingerprint, and once the
stage is finished also every file with its size. A folder with another fingerprint is emptied; one with the same
fingerprint that is not finished is gone on with, so stages write whole files (`engine.files`) and skip those that
are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import BlindspotError
from engine.files import content_hash, write_json

RECORD = "stage.json"

Progress = Callable[[int, int], None]
"""Called with the work done so far and the work there is, for example images."""


@dataclass(frozen=True)
class Stage:
    """One step of a recipe."""

    name: str
    """Also its folder in the work directory, for example `encode/real`."""
    run: Callable[[Path, Progress], Mapping[str, Any] | None]
    """Fills the folder it is given; what it returns is kept as the stage's summary."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Everything that decides the result, JSON-friendly; not how it is computed (device, batch)."""
    after: tuple[str, ...] = ()
    """Names of the stages whose results it reads."""
    reads: tuple[Path, ...] = ()
    """Folders and files from outside, taken by content."""
    unit: str = "images"
    """What its progress counts."""
    version: int = 1
    """Raised when the stage's code changes its result."""


@dataclass(frozen=True)
class Outcome:
    """What happened to a stage in one run."""

    name: str
    action: Literal["kept", "ran", "resumed"]
    seconds: float
    fingerprint: str
    summary: Mapping[str, Any]


class WorkDirectory:
    """The folder in which a recipe's stages keep their results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, stage: str) -> Path:
        """The stage's own folder."""
        return self.path / stage

    def record(self, stage: str) -> dict[str, Any]:
        """What `stage.json` says, or `{}` if there is none."""
        try:
            record = json.loads((self.folder(stage) / RECORD).read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def summary(self, stage: str) -> dict[str, Any]:
        """What the finished stage returned."""
        return self.record(stage).get("summary", {})

    def finished(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage is done with this fingerprint and all its files are there in full."""
        record = self.record(stage)
        if record.get("fingerprint") != fingerprint or not record.get("done"):
            return False
        return record["files"] == sizes(self.folder(stage))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out; the system frees the lock when its process dies, however it dies.

        Raises:
            BlindspotError: another run holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise BlindspotError(
                    f"Another run (process {owner}) is working in {self.path}; wait for it, or use another --out."
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a stage's folder, by relative path; the record itself is left out."""
    found = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            found[os.path.relpath(path, folder)] = os.path.getsize(path)
    found.pop(RECORD, None)
    return found


def fingerprint(stage: Stage, upstream: Mapping[str, str]) -> str:
    """The SHA-256 of all that decides a stage's result; `upstream` holds the fingerprints of the stages before it."""
    decisive = {
        "stage": stage.name,
        "version": stage.version,
        "params": stage.params,
        "after": {name: upstream[name] for name in stage.after},
        "reads": [content_hash(path) for path in stage.reads],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def carry_out(stages: Sequence[Stage], work: WorkDirectory, progress: Callable[[Stage], Progress]) -> list[Outcome]:
    """Run the stages that are not done, in the order given; stages come after those they read.

    Args:
        stages: all stages of a recipe.
        work: where their results are; the caller holds its lock.
        progress: called once per stage that runs, gives what the stage reports to.
    """
    prints: dict[str, str] = {}
    outcomes = []
    for stage in stages:
        prints[stage.name] = fingerprint(stage, prints)
        outcomes.append(_carry_out_one(stage, prints[stage.name], work, progress))
    return outcomes


def _carry_out_one(stage: Stage, mark: str, work: WorkDirectory, progress: Callable[[Stage], Progress]) -> Outcome:
    if work.finished(stage.name, mark):
        return Outcome(stage.name, "kept", 0.0, mark, work.summary(stage.name))
    started = time.monotonic()
    folder = work.folder(stage.name)
    resumed = work.record(stage.name) == {"fingerprint": mark, "done": False}
    if not resumed:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        write_json(folder / RECORD, {"fingerprint": mark, "done": False})
    summary = dict(stage.run(folder, progress(stage)) or {})
    record = {"fingerprint": mark, "done": True, "summary": summary, "files": sizes(folder)}
    write_json(folder / RECORD, record)
    return Outcome(stage.name, "resumed" if resumed else "ran", time.monotonic() - started, mark, summary)
