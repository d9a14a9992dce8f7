"""One concept drawn several times as one job: at rising strengths, or at rising shares of the real images' score.

A folder ``0``, ``1`` ... holds each drawing as `engine.samplers.records` stores it; `sweep.json`, written last, says
what differs between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.errors import BlindspotError
from engine.files import write_json
from engine.samplers.generation import GenerationRequest, generate_images
from engine.samplers.records import (
    job_parameters,
    load_generation,
    preview_jpeg,
    read_own,
    save_generation,
)
from engine.samplers.registry import WITHOUT_STRENGTH

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.jobs import Job, JobQueue, Task
    from engine.samplers.base import StepEvent

RECORD = "sweep.json"
STRENGTHS = (0.0, 0.5, 1.0, 2.0)
"""Of a sweep, in units of the request's own strength."""
LEVELS = (0.5, 0.75, 1.0)
"""Of an activation ladder, in units of the best real images' mean score."""
LARGEST = 1 << 16
MOST = 8


@dataclass(frozen=True)
class SweepRecord:
    """What `sweep.json` says."""

    kind: Literal["strength", "level"]
    values: list[float]
    concept: int
    atlas: str


def sweep_requests(request: GenerationRequest, kind: Literal["strength", "level"]) -> list[GenerationRequest]:
    """The requests of a sweep of the strength or of an activation ladder; the seed stays the same.

    Raises
    ------
    BlindspotError
        For a method that no strength changes.
    """
    if request.method in WITHOUT_STRENGTH:
        raise BlindspotError(f"Method {request.method!r} has no strength, so there is nothing to vary: choose another.")
    if kind == "level":
        return [replace(request, match=True, level=level) for level in LEVELS]
    if request.strength == 0:
        raise BlindspotError("A sweep goes up to twice the strength, and this strength is 0: give a larger one.")
    return [replace(request, match=False, strength=factor * request.strength) for factor in STRENGTHS]


def submit_sweep(
    queue: JobQueue,
    atlas: Atlas,
    request: GenerationRequest,
    kind: Literal["strength", "level"],
    holder: str | None = None,
    dtype: str | None = None,
) -> Job:
    """Queue a sweep as one job, or join the one that is the same; its previews show the drawing under way.

    Raises
    ------
    BlindspotError
        As `sweep_requests` and `JobQueue.submit`.
    """
    requests = sweep_requests(request, kind)
    values = [one.level if kind == "level" else one.strength for one in requests]
    record = SweepRecord(kind, values, request.concept, str(atlas.path))

    def work(task: Task) -> None:
        task.report(0, len(requests) * request.steps)
        for place, one in enumerate(requests):

            def report(event: StepEvent, place: int = place) -> None:
                done = place + event.step / max(event.steps, 1)
                task.report(round(done * request.steps), len(requests) * request.steps, preview_jpeg(event.images))

            drawn = generate_images(atlas, one, task.device, report, dtype)
            folder = task.folder / str(place)
            folder.mkdir()
            save_generation(drawn, folder, str(atlas.path))
        write_json(task.folder / RECORD, vars(record))

    rungs = [job_parameters(atlas, one, dtype) for one in requests]
    judge = {"judge": atlas.info.judge} if atlas.info.judge else {}
    return queue.submit({"sweep": kind, "rungs": rungs} | judge, work, holder)


def is_sweep(folder: Path | None) -> bool:
    """Whether a job's results are those of a sweep."""
    return folder is not None and (folder / RECORD).is_file()


def load_sweep(folder: Path) -> tuple[SweepRecord, list[dict[str, Any]]]:
    """Read a finished sweep: what differs, and the record of each drawing (`load_generation`), in ``folder/0`` ...

    Raises
    ------
    BlindspotError
        If the folder holds none.
    """
    from pydantic import TypeAdapter

    try:
        record = TypeAdapter(SweepRecord).validate_json(read_own(Path(folder), RECORD, LARGEST), strict=True)
    except (OSError, ValueError, RecursionError) as error:
        raise BlindspotError(f"{folder} holds no sweep: draw it again.") from error
    if not 1 <= len(record.values) <= MOST:
        raise BlindspotError(f"{folder} holds no sweep: draw it again.")
    return record, [load_generation(Path(folder) / str(place)) for place in range(len(record.values))]


def finished_sweeps(queue: JobQueue, atlas: Atlas, concept: int) -> list[tuple[Job, SweepRecord]]:
    """All finished sweeps of one concept of an atlas, newest first."""
    folders = ((job, job.result_dir) for job in queue.finished())
    found = [
        (job, _record(folder, folder.stat().st_mtime_ns)) for job, folder in folders if is_sweep(folder) and folder
    ]
    return [(job, one) for job, one in found if one and one.atlas == str(atlas.path) and one.concept == concept]


@lru_cache(maxsize=256)
def _record(folder: Path, changed: int) -> SweepRecord | None:
    try:
        return load_sweep(folder)[0]
    except BlindspotError:
        return None


def is_matched(means: Sequence[float], tolerance: float = 0.1) -> bool:
    """Whether mean scores lie within a tolerance of each other: what drawings are fairly compared at."""
    top = max(means, default=0.0)
    return top > 0 and min(means) >= (1 - tolerance) * top
