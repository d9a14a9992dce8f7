"""Runs stages once: fingerprints say what is done, a lock keeps a second run out, `kill -9` costs one chunk.

A stage owns a folder of the work directory. Its fingerprint is the SHA-256 of its parameters, the contents of what it
reads and the fingerprints of the stages before it. `stage.json` in the folder records the fingerprint, and once the
stage is finished also every file with its size and SHA-256. A folder with another fingerprint
is emptied; one with the same fingerprint that is not finished is gone on with, so stages write whole files
(`engine.files`) and skip those that are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from safetensors import safe_open

from engine.atlas.schema import HEADER, REAL
from engine.atlas.writer import AtlasWriter
from engine.errors import BlindspotError
from engine.files import (
    PARTIAL,
    content_hash,
    file_hash,
    full_disk_explained,
    known_hashes,
    read_arrays,
    read_json,
    write_json,
)
from engine.hub import find_model
from precompute.engines import Engine, LocalEngine
from precompute.recipe import ImageSource, Pipeline, Recipe

RECORD = "stage.json"
NOT_IN_FINGERPRINT = {"device", "batch", "label", "description"}
"""Fields of a recipe that say how a stage runs or what a source is called, not what the result is."""
HASHES = "hashes.json"
"""File of the work directory with the hashes of what a recipe reads."""
HEADER_MARK = "header.sha256"
"""File of the stage `assemble` with the hash of the atlas header that it wrote."""

Progress = Callable[[int, int], None]
"""Called with the work done so far and the work there is, for example images."""


class WorkDirectory:
    """The folder in which the stages of one atlas keep their results."""

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

    def finished(self, stage: str, mark: str) -> bool:
        """Whether the stage is done with this fingerprint and all its files are there in full.

        The contents of lists and reports (JSON), which every run reads, are compared too.
        """
        record = self.record(stage)
        return (
            record.get("fingerprint") == mark
            and bool(record.get("done"))
            and record.get("files") == sizes(self.folder(stage))
            and all(
                file_hash(self.folder(stage) / name) == known
                for name, known in record.get("sha256", {}).items()
                if name.endswith(".json")
            )
        )

    def intact(self, stage: str) -> bool:
        """Whether the files of a finished stage still have the contents they were written with."""
        known = self.record(stage).get("sha256")
        return known is None or known == hashes(self.folder(stage))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out; the system frees the lock when its process dies, however it dies.

        Raises
        ------
        BlindspotError
            If another run holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # A link in its place is not followed: what it leads to would be emptied.
        with open(self.path / "lock", "a+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as handle:
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


class Context:
    """One build of a recipe.

    Parameters
    ----------
    recipe : what is built.
    work : where the stages keep their results.
    out : the atlas's folder, absolute.
    engine : computes what goes image by image; this process if not given.
    """

    def __init__(self, recipe: Recipe, work: WorkDirectory, out: Path, engine: Engine | None = None) -> None:
        self.recipe, self.work, self.out, self.engine = recipe, work, out, engine or LocalEngine()
        self.sources = (REAL, *recipe.models)
        """Names of all sources of images, the real one first."""

    def source(self, name: str) -> ImageSource:
        """What the recipe says of a source."""
        return self.recipe.real if name == REAL else self.recipe.models[name]

    def images_stage(self, name: str) -> str:
        """Name of the stage that provides a source's images."""
        return f"{'generate' if isinstance(self.source(name), Pipeline) else 'corpus'}/{name}"

    def folder(self, stage: str) -> Path:
        """Where a stage keeps its results."""
        return self.work.folder(stage)


class Stage:
    """One step of a build; a subclass defines `run`, and `add_to_atlas` if the atlas gets something of it.

    Parameters
    ----------
    context : the recipe and the results of other stages.
    name : also its folder in the work directory, for example `encode/real`.
    params : everything that decides the result, JSON-friendly; not how it is computed (device, batch).
    after : names of the stages whose results it reads.
    reads : folders and files from outside, taken by content.
    """

    unit: ClassVar[str] = "images"
    """What its progress counts."""
    version: ClassVar[int] = 1
    """Raised when the stage's code changes its result."""

    def __init__(
        self,
        context: Context,
        name: str,
        params: Mapping[str, Any] | None = None,
        after: Sequence[str] = (),
        reads: Sequence[Path] = (),
    ) -> None:
        self.context, self.name = context, name
        self.params, self.after, self.reads = params or {}, tuple(after), tuple(reads)

    def run(self, folder: Path, progress: Progress) -> Mapping[str, Any] | None:
        """Fill the stage's folder, reporting the work done and all work; returns the stage's summary."""
        raise NotImplementedError

    def preflight(self) -> None:
        """Raise `BlindspotError` if it would fail whatever it reads; called before any stage runs, and quick."""

    def check(self) -> None:
        """Raise `BlindspotError` if it would fail; called before it runs, once all that it reads is there."""

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write what all stages of this class, one per source perhaps, add to the atlas; nothing by default."""


@dataclass(frozen=True)
class Outcome:
    """What happened to a stage in one run."""

    name: str
    action: Literal["kept", "ran", "resumed"]
    seconds: float
    fingerprint: str
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Build:
    """What a run made."""

    out: Path
    """The atlas."""
    work: Path
    """The work directory, which a later run goes on from."""
    header: dict[str, Any]
    """The atlas's `atlas.json`."""
    outcomes: list[Outcome]
    skipped: Path | None
    """A table of the images that were left out and the captions that were not read, if there are any."""
    seconds: float
    counts: Mapping[str, Any] = field(default_factory=dict)
    """Per source its images, captions, pairs, and how many were left out for which reason, if they were gathered."""


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a stage's folder, by relative path; the record itself is left out."""
    found = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            found[os.path.relpath(path, folder)] = os.lstat(path).st_size
    found.pop(RECORD, None)
    return found


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a stage's folder, by relative path; the record itself is left out."""
    names = list(sizes(folder))
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(lambda name: file_hash(folder / name), names), strict=True))


def fingerprint_fields(block: Any, *others: str) -> dict[str, Any]:
    """The fields of a recipe's block that decide a result, JSON-friendly, without `others`."""
    return TypeAdapter(type(block)).dump_python(block, mode="json", exclude=NOT_IN_FINGERPRINT | set(others))


def model_input(
    key: str, ref: str, params: dict[str, Any], *, files: bool = False
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """`params` and `reads` of a stage that uses a model: a folder counts by its contents, a hub id by its name.

    With `files` the model may be a single file of weights.

    Raises
    ------
    BlindspotError
        If `ref` is a path and there is no folder.
    """
    missing = f"{key} is {ref}, but there is no such folder; give a folder or a Hugging Face id."
    found = find_model(ref, missing, files=files)
    return (params, (found,)) if isinstance(found, Path) else (params | {"model": found}, ())


def fingerprint(stage: Stage, upstream: Mapping[str, str]) -> str:
    """The SHA-256 of all that decides a stage's result; `upstream` holds the fingerprints of the stages before it."""
    fields = {
        "stage": stage.name,
        "version": stage.version,
        "params": stage.params,
        "after": {name: upstream[name] for name in stage.after},
        "reads": [content_hash(path) for path in stage.reads],
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def run_stages(stages: Sequence[Stage], work: WorkDirectory, progress: Callable[[Stage], Progress]) -> list[Outcome]:
    """Run the stages that are not done, in the order given; stages come after those they read.

    Parameters
    ----------
    stages : all stages of a build.
    work : where their results are; the caller holds its lock.
    progress : called once per stage that runs; returns what the stage reports to.
    """
    marks: dict[str, str] = {}
    for stage in stages:
        marks[stage.name] = fingerprint(stage, marks)
    due: set[str] = set()
    for stage in reversed(stages):
        read = any(stage.name in other.after for other in stages if other.name in due)
        if not work.finished(stage.name, marks[stage.name]) or (read and not work.intact(stage.name)):
            due.add(stage.name)
    outcomes: list[Outcome] = []
    unchecked = [stage for stage in stages if stage.name in due]
    for stage in unchecked:
        stage.preflight()
    for stage in stages:
        done = {outcome.name for outcome in outcomes}
        for other in [other for other in unchecked if done.issuperset(other.after)]:
            unchecked.remove(other)
            other.check()
        outcomes.append(_run_stage(stage, marks[stage.name], work, progress, stage.name in due))
    return outcomes


def _run_stage(
    stage: Stage, mark: str, work: WorkDirectory, progress: Callable[[Stage], Progress], due: bool
) -> Outcome:
    if not due and work.finished(stage.name, mark):
        return Outcome(stage.name, "kept", 0.0, mark, work.summary(stage.name))
    started = time.monotonic()
    folder = work.folder(stage.name)
    resumed = work.record(stage.name) == {"fingerprint": mark, "done": False}
    if resumed:
        _drop_damaged(folder)
    else:
        _clear(folder, work.record(stage.name))
        write_json(folder / RECORD, {"fingerprint": mark, "done": False})
    summary = dict(stage.run(folder, progress(stage)) or {})
    for name in sizes(folder):
        if name.endswith(PARTIAL):  # of a process that was killed
            (folder / name).unlink()
    record = {"fingerprint": mark, "done": True, "summary": summary}
    write_json(folder / RECORD, record | {"files": sizes(folder), "sha256": hashes(folder)})
    return Outcome(stage.name, "resumed" if resumed else "ran", time.monotonic() - started, mark, summary)


_ENDINGS = ".npy .npz .json .parquet .pt .safetensors .png .webp .sha256 .jpg .gif .tif .bmp .image"
ENDINGS = frozenset(("", *_ENDINGS.split()))
"""Of the files that stages write."""


def _clear(folder: Path, record: Mapping[str, Any]) -> None:
    """Empty a stage's folder of an earlier run; raises `BlindspotError` if it holds what no run wrote."""
    found = {name for name in sizes(folder) if not Path(name).name.startswith(".") and not name.endswith(PARTIAL)}
    # An unfinished stage has no list of its files yet.
    foreign = sorted(found - {*record["files"]} if "files" in record else
                     {name for name in found if not record or not _of_a_stage(Path(name))})  # fmt: skip
    if foreign or folder.is_symlink():
        raise BlindspotError(
            f"{folder / (foreign or [''])[0]} is of no earlier run and is kept: move it, or use another --out."
        )
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _of_a_stage(file: Path) -> bool:
    """Whether a stage writes files like this one, named within its folder: marks of images left out have an end too."""
    return file.suffix in ENDINGS or (file.parts[0] == "left-out" and file.suffix == ".txt")


def _drop_damaged(folder: Path) -> None:
    """Delete what a power cut left of a stage that is gone on with: empty files, and those that end too soon."""
    for name in sizes(folder):
        path = folder / name
        try:
            whole = path.is_file() and path.stat().st_size > 0 and _ends_well(path)
        except Exception:  # whatever a parser says of a damaged file
            whole = False
        if not whole and path.suffix in ENDINGS:
            path.unlink()


def _ends_well(path: Path) -> bool:
    """Whether a file has the length or the end that its kind tells, and is JSON if it should be; may raise anything."""
    if path.suffix == ".npy":
        np.load(path, mmap_mode="r", allow_pickle=False)
    elif path.suffix == ".npz":
        read_arrays(path)
    elif path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".safetensors":
        with safe_open(path, "np"):
            pass
    elif path.suffix == ".parquet":
        pq.ParquetFile(path).close()
    elif path.suffix == ".pt":
        return zipfile.is_zipfile(path)
    elif path.suffix in (".png", ".webp"):
        with open(path, "rb") as file:
            head, end = file.read(12), file.seek(-8, os.SEEK_END) + 8
            return file.read(4) == b"IEND" if path.suffix == ".png" else int.from_bytes(head[4:8], "little") + 8 == end
    return True


def build_stages(
    out: Path, stages: Callable[[WorkDirectory, Path], Sequence[Stage]], progress: Callable[[Stage], Progress]
) -> Build:
    """Run those stages that are not done yet; the last of them, `assemble`, puts the atlas at `out`.

    Parameters
    ----------
    out : the atlas's folder; `<out>.work` beside it keeps the stages' results.
    stages : called with the work directory and the atlas's absolute path; returns the stages in order.
    progress : called once per stage that runs; returns what the stage reports to.

    Raises
    ------
    BlindspotError
        If an input is missing or unusable, the disk is full, or another run works on the same atlas.
    """
    started = time.monotonic()
    out = Path(os.path.abspath(out))
    if out.exists() and not (out / HEADER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise BlindspotError(f"{out} exists and is not an atlas; choose another --out.")
    work = WorkDirectory(out.with_name(out.name + ".work"))
    content_hash.cache_clear()
    with full_disk_explained(work.path), work.lock(), known_hashes(work.path / HASHES):
        _check_atlas(work, out)
        outcomes = run_stages(stages(work, out), work, progress)
    return Build(out, work.path, read_json(out / HEADER), outcomes, None, time.monotonic() - started)


def _check_atlas(work: WorkDirectory, out: Path) -> None:
    """Let `assemble` run again if the atlas is not the one it wrote, or lacks a file."""
    mark = work.folder("assemble") / HEADER_MARK
    try:
        files = read_json(out / HEADER)["files"]
        whole = all((out / rel).exists() for rel in files)
        kept = [(out / rel).stat().st_size == entry["bytes"] for rel, entry in files.items() if not rel.endswith("/")]
        if whole and all(kept) and mark.read_text() == file_hash(out / HEADER):
            return
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    mark.unlink(missing_ok=True)
