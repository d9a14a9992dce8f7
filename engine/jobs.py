"""A bounded job queue: one worker thread per device, duplicates joined, results kept on disk.

A job is named by a hash of its parameters. Submitting the same twice joins the first job; submitting again after a
restart finds the finished result on disk. The work is any function of a `Task`, which it uses to report progress and to
write its files; the folder of results appears only when the work has succeeded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engine.errors import BlindspotError

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
STALE_SECONDS = 24 * 3600
JOB_ID = re.compile(r"[0-9a-f]{16}")

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Raised inside a job's work at the first report after someone cancelled it."""


@dataclass(frozen=True)
class Job:
    """What is known about a job at one moment."""

    id: str
    """Hash of the parameters; fit for a URL."""
    state: State
    position: int = 0
    """Jobs that run before this one starts; 0 unless queued."""
    step: int = 0
    steps: int = 0
    """Steps done and steps in all; 0 before the first report."""
    preview: bytes | None = None
    """The latest picture as JPEG."""
    seconds_left: float | None = None
    """Estimate from the pace so far; None before there is one."""
    error: str | None = None
    """One sentence, when failed."""
    result_dir: Path | None = None
    """Folder of the results, when done."""

    @property
    def ended(self) -> bool:
        """Whether nothing about this job will change any more."""
        return self.state in ENDED


@dataclass
class _Record:
    """The queue's own, mutable view of a job; guarded by the queue's lock."""

    job: Job
    work: Callable[[Task], None]
    holders: set[str] = field(default_factory=set)
    """Who wants the result: a job goes on while one of them does."""
    cancel: bool = False
    pace: tuple[float, int] | None = None
    latest: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def seconds_left(self) -> float | None:
        """From the pace since the first report, so that loading models does not count as a step."""
        began, first = self.pace or (0.0, self.job.step)
        if self.job.state != "running" or self.job.step <= first:
            return None
        pace = (self.latest - began) / (self.job.step - first)
        return max(0.0, pace * (self.job.steps - self.job.step) - (time.monotonic() - self.latest))


class Task(NamedTuple):
    """What the work of a job gets: a folder for its files, a device, and a way to report."""

    folder: Path
    """An empty folder; it becomes the job's results when the work returns, and is removed if it does not."""
    device: str
    """The device of the worker, such as "cpu" or "cuda:0"; "auto": the work takes the GPU if there is one."""
    progress: Callable[[int, int, bytes | None], None]
    """The queue's side of `report`."""

    def report(self, step: int, steps: int, preview: bytes | None = None) -> None:
        """Report how far the work is, with a picture (JPEG) if there is one.

        Raises
        ------
        Cancelled
            If the job was cancelled meanwhile; the work must not catch it.
        """
        self.progress(step, steps, preview)


def job_id(parameters: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name a set of JSON-like parameters, whatever their order."""
    text = json.dumps(parameters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class JobQueue:
    """Runs jobs one at a time per device, in the order they came, in daemon threads.

    Parameters
    ----------
    results
        Folder of all results, one subfolder per job; made on the first job.
    devices
        One worker thread for each.
    limit
        How many jobs may wait; more are refused.
    remembered
        How many ended jobs are kept in memory (their results stay on disk).
    each
        How many jobs that have not ended one holder may have; more are refused.
    kept
        How many results are kept on disk; the oldest go when another one is finished.
    alive
        Whether a holder is still there; one that has gone counts no more.
    """

    def __init__(
        self,
        results: Path,
        devices: Sequence[str] = ("auto",),
        limit: int = 8,
        remembered: int = 64,
        each: int = 4,
        kept: int = 256,
        alive: Callable[[str], bool] = lambda holder: True,
    ):
        self.results, self.limit, self.remembered = Path(results), limit, remembered
        self.each, self.kept, self._alive = each, kept, alive
        self._records: dict[str, _Record] = {}
        self._waiting: list[_Record] = []
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False
        for folder in self.results.glob(".*.partial-*"):  # left by a killed process; a younger one may still be written
            if 0 < _changed(folder) < (time.time() - STALE_SECONDS) * 1e9:
                shutil.rmtree(folder, ignore_errors=True)
        self._threads = [threading.Thread(target=self._serve, args=(device,), daemon=True) for device in devices]
        for thread in self._threads:
            thread.start()

    def submit(self, parameters: Mapping[str, Any], work: Callable[[Task], None], holder: str | None = None) -> Job:
        """Queue `work`, or join the job that already does or did the same.

        Parameters
        ----------
        parameters
            Everything the result depends on, JSON-like: they name the job.
        work
            Called with a `Task` in a worker thread.
        holder
            Who asks, such as the id of a browser's session.

        Raises
        ------
        BlindspotError
            If the queue is full, or the holder has too many jobs that have not ended.
        """
        key = job_id(parameters)
        with self._changed:
            found = self._find(key)
            dying = key in self._records and self._records[key].cancel
            if found is not None and (found.state in ("queued", "done") or (found.state == "running" and not dying)):
                self._hold(key, holder)
                return found
            held = [record for record in self._records.values() if holder in record.holders and not record.job.ended]
            if len(held) >= self.each:
                raise BlindspotError(
                    f"You have {len(held)} jobs that have not ended: cancel one or wait until one has ended."
                )
            if len(self._waiting) >= self.limit:
                raise BlindspotError(
                    f"The queue is full with {self.limit} waiting jobs: cancel one or try again when one has ended."
                )
            self._records.pop(key, None)
            record = self._records[key] = _Record(Job(key, "queued"), work)
            self._hold(key, holder)
            self._waiting.append(record)
            ended = [key for key, record in self._records.items() if record.job.ended]
            for old in ended[: max(0, len(ended) - self.remembered)]:
                del self._records[old]
            self._changed.notify()
            return self._snapshot(record)

    def get(self, key: str) -> Job | None:
        """The job of that id, from memory or from the results on disk; None if there never was one."""
        with self._changed:
            return self._find(key)

    def follow(self, key: str, holder: str) -> Job | None:
        """The job of that id, which now goes on until `holder`, too, has cancelled it or has gone."""
        with self._changed:
            self._hold(key, holder)
            return self._find(key)

    def finished(self) -> list[Job]:
        """All jobs whose results are on disk, also those of earlier processes, newest first."""
        return [Job(folder.name, "done", result_dir=folder) for folder in self._stored()]

    def jobs(self) -> list[Job]:
        """All jobs in memory, oldest first."""
        with self._changed:
            return [self._snapshot(record) for record in self._records.values()]

    def cancel(self, key: str, holder: str | None = None) -> bool:
        """End a job: at once if it waits, at its next report if it runs; nothing if it has ended.

        With a `holder`, the job ends only when nobody else holds it.

        Returns
        -------
        Whether the job ends or has ended.
        """
        with self._changed:
            record = self._records.get(key)
            if record is None or record.job.ended:
                return True
            record.holders = {other for other in record.holders - {holder} if self._alive(other)}
            if holder is not None and record.holders:
                return False
            record.cancel = True
            if record.job.state == "queued":
                self._waiting.remove(record)
                self._end(record, "cancelled")
            return True

    def wait(self, key: str, timeout: float | None = None) -> Job | None:
        """Block until the job has ended or `timeout` seconds have passed; the job as it is then."""
        with self._changed:
            record = self._records.get(key)
        if record is not None:
            record.ended.wait(timeout)
        return self.get(key)

    def close(self, timeout: float | None = 10.0) -> None:
        """Cancel everything and wait for the workers to end."""
        for job in self.jobs():
            self.cancel(job.id)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _find(self, key: str) -> Job | None:
        record = self._records.get(key)
        if record is not None and (record.job.state != "done" or _is_folder(self._folder(key))):
            return self._snapshot(record)
        stored = JOB_ID.fullmatch(key) and _is_folder(self._folder(key))
        return Job(key, "done", result_dir=self._folder(key)) if stored else None

    def _hold(self, key: str, holder: str | None) -> None:
        if holder is not None and key in self._records:
            self._records[key].holders.add(holder)

    def _stored(self) -> list[Path]:
        """Folders of results, newest first."""
        try:
            names = [name for name in os.listdir(self.results) if JOB_ID.fullmatch(name)]
        except OSError:
            return []
        changed = {self._folder(name): _changed(self._folder(name)) for name in names}
        return sorted((folder for folder, at in changed.items() if at), key=lambda folder: -changed[folder])

    def _keep(self, folder: Path, place: Path) -> None:
        """Give results their place, unless another process put the same there meanwhile."""
        try:
            if not _is_folder(place):
                place.unlink(missing_ok=True)  # a link or a file in its place is none of ours
                os.replace(folder, place)
        except OSError:
            if not _is_folder(place):
                raise

    def _snapshot(self, record: _Record) -> Job:
        position = self._waiting.index(record) + self._running if record.job.state == "queued" else 0
        return replace(record.job, position=position, seconds_left=record.seconds_left())

    def _progress(self, record: _Record, step: int, steps: int, preview: bytes | None) -> None:
        with self._changed:
            if record.cancel:
                raise Cancelled
            record.latest = time.monotonic()
            record.pace = record.pace or (record.latest, step)
            record.job = replace(record.job, step=step, steps=steps, preview=preview or record.job.preview)

    def _serve(self, device: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                record = self._waiting.pop(0)
                record.job = replace(record.job, state="running")
                self._running += 1
            state, error = self._run(record, device)
            with self._changed:
                self._running -= 1
                self._end(record, state, error)

    def _run(self, record: _Record, device: str) -> tuple[State, str | None]:
        """Do the work in a hidden folder and give it the job's name when all is written."""
        folder = None
        try:
            self.results.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{record.job.id}.partial-", dir=self.results))
            record.work(Task(folder, device, partial(self._progress, record)))
            self._keep(folder, self._folder(record.job.id))
            for old in self._stored()[self.kept :]:
                shutil.rmtree(old, ignore_errors=True)
            return "done", None
        except Cancelled:
            return "cancelled", None
        except BlindspotError as error:
            return "failed", " ".join(str(error).split())
        except BaseException as error:  # a worker outlives whatever a job raises, SystemExit too
            log.exception("Job %s failed", record.job.id)
            reason = " ".join(str(error).split()) or "no reason given"
            return "failed", f"The job ended with {type(error).__name__}: {reason[:200]}."
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _end(self, record: _Record, state: State, error: str | None = None) -> None:
        folder = self._folder(record.job.id) if state == "done" else None
        record.job = replace(record.job, state=state, error=error, result_dir=folder)
        record.ended.set()

    def _folder(self, key: str) -> Path:
        return self.results / key


def _changed(path: Path) -> int:
    """When a folder was last changed, in nanoseconds; 0 for a link and anything else that is no folder."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_mtime_ns if stat.S_ISDIR(found.st_mode) else 0


def _is_folder(path: Path) -> bool:
    return _changed(path) > 0
