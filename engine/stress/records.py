"""Stress tests in words, as jobs of the app and as files: strips of images, and the record of the rates."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.blindspots.elicitation import NOT_DECIDED, TRUE_BLINDSPOT, VERDICTS
from engine.errors import BlindspotError
from engine.files import regular_file, write_json, write_whole

if TYPE_CHECKING:
    from PIL import Image

    from engine.atlas.reader import Atlas
    from engine.jobs import Job, JobQueue, Task
    from engine.stress.testing import StressResult

RECORD = "stress.json"
"""File that describes the test of a folder; it is written last."""
LARGEST = 2 * 2**20


@dataclass(frozen=True)
class StressRow:
    """A row of table `stress`; numbers that are not known are None."""

    concept: int
    model: str
    word: str
    prompts_from: str
    prompts: int
    prompts_shown: int
    prompts_low: float
    prompts_high: float
    images: int
    shown: int
    rate: float
    ci_low: float
    ci_high: float
    control: float
    control_images: int
    level: float
    real_rate: float
    real_control: float
    against: str
    asked_more: float
    share: float | None
    p: float | None
    q: float
    verdict: str
    judged: int
    recognised: int
    steps: int
    seed: int


@dataclass(frozen=True)
class _Stored:
    """What a record must hold to be shown."""

    atlas: str
    rows: tuple[StressRow, ...]
    seconds: float


def rows_of(atlas: Atlas, concept: int | None = None) -> list[StressRow]:
    """The rows of an atlas's table, by concept and model."""
    frame = atlas.stress(concept)
    frame = frame.astype(object).where(frame.notna(), None)
    return [StressRow(**{str(name): value for name, value in row.items()}) for row in frame.to_dict("records")]


def stress_sentence(row: StressRow) -> str:
    """What a test found of one concept in one model."""
    said = {"true blindspot": "True blindspot", "promptable": "Promptable"}.get(row.verdict, "Not decided")
    judge = f" The judge sees it in {_percent(row.recognised / row.judged)}." if row.judged else ""
    other = "real images" if row.against == "real" else row.against
    share = "" if row.share is None else f" Asking adds {_percent(max(row.share, 0))} of what it adds in {other}."
    return (
        f"{said}: asked for “{row.word}” by {row.prompts} prompts, {row.model} shows it in {_percent(row.rate)} "
        f"[{100 * row.ci_low:.0f} to {_percent(row.ci_high)}] of {row.images} images "
        f"(unasked: {_percent(row.control)}).{share}{judge}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def is_blind(row: StressRow) -> bool:
    """Whether the verdict is a true blindspot."""
    return row.verdict == TRUE_BLINDSPOT


def is_open(row: StressRow) -> bool:
    """Whether the test decided nothing."""
    return row.verdict == NOT_DECIDED


def stress_command(atlas: str | Path, concept: int) -> str:
    """The command that tests a concept and keeps the result in the atlas."""
    return shlex.join(["python", "-m", "precompute", "stress", str(atlas), "--concept", str(concept)])


def submit_stress(
    queue: JobQueue, atlas: Atlas, concept: int, count: int, per_prompt: int, holder: str | None = None
) -> Job:
    """Queue a test of a concept, by prompts from the captions, in the models whose pipelines the header names.

    Raises
    ------
    BlindspotError
        If the queue is full, the holder has too many jobs, a pipeline may not be loaded, or no caption names it.
    """
    from engine.stress.images import pipelines_in
    from engine.stress.prompts import caption_prompts, word_of
    from engine.stress.testing import StressRequest, run_stress_test

    pipelines = pipelines_in(atlas)
    asked = caption_prompts(atlas, concept, word_of(atlas, concept), count)
    request = StressRequest(per_prompt)

    def work(task: Task) -> None:
        def report(done: int, total: int, images: list[Image.Image]) -> None:
            task.report(done, total, _preview(images) if images else None)

        total = len(asked.prompts) * per_prompt * len(pipelines)
        task.report(0, total)
        result = run_stress_test(atlas, pipelines, [asked], task.folder / "images", request, report, task.device)
        save_stress(result, task.folder, atlas)

    info = atlas.info
    named = {"path": str(atlas.path), "pipelines": info.pipelines, "encoder": info.encoder, "stages": dict(info.stages)}
    parameters = {"stress": {"concept": concept, "count": count, "images": per_prompt}, "atlas": named}
    return queue.submit(parameters, work, holder)


def _preview(images: list[Image.Image]) -> bytes:
    import io

    from engine.figures.images import strip

    buffer = io.BytesIO()
    strip(images[:8]).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def save_stress(result: StressResult, folder: Path, atlas: Atlas) -> None:
    """Write `CONCEPT-MODEL.png`, the best images of each, and, last, `stress.json`."""
    from functools import partial

    for concept, model in result.ranked:
        write_whole(folder / _strip_name(concept, model), partial(result.strip(concept, model).save, format="PNG"))
    frame = result.rows.astype(object).where(result.rows.notna(), None)
    document = {"atlas": str(atlas.path), "rows": frame.to_dict("records"), "seconds": round(result.seconds, 1)}
    write_json(folder / RECORD, document)


def _strip_name(concept: int, model: str) -> str:
    return f"{concept}-{model}.png"


def is_stress(folder: Path | None) -> bool:
    """Whether a job's results are those of a stress test."""
    return folder is not None and (folder / RECORD).is_file()


def load_stress(folder: Path) -> list[StressRow]:
    """Read the rows that `save_stress` wrote; links are not followed.

    Raises
    ------
    BlindspotError
        If the folder holds none.
    """
    return list(_load(folder).rows)


def _load(folder: Path) -> _Stored:
    from pydantic import TypeAdapter

    try:
        file = regular_file(folder, RECORD)
        if file.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        stored = TypeAdapter(_Stored).validate_python(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise BlindspotError(f"{folder} holds no stress test: run it again.") from error
    for row in stored.rows:
        numbers = [value for value in vars(row).values() if isinstance(value, float)]
        if row.verdict not in VERDICTS or not all(map(math.isfinite, numbers)):
            raise BlindspotError(f"{folder} holds no stress test: run it again.")
    return stored


def strip_bytes(folder: Path, row: StressRow) -> bytes:
    """The best images of a row as PNG bytes; raises `BlindspotError` when they are not there."""
    try:
        return regular_file(folder, _strip_name(row.concept, row.model)).read_bytes()
    except OSError as error:
        raise BlindspotError(f"{folder} lacks the images of its stress test: run it again.") from error


def finished_stress(queue: JobQueue, atlas: Atlas, concept: int) -> tuple[Job, list[StressRow]] | None:
    """The newest finished test of a concept of an atlas, also of earlier processes."""
    for job in queue.finished():
        if job.result_dir is not None and is_stress(job.result_dir):
            found = _record(job.result_dir, job.result_dir.stat().st_mtime_ns)
            if found and found.atlas == str(atlas.path) and found.rows and found.rows[0].concept == concept:
                return job, list(found.rows)
    return None


@lru_cache(maxsize=256)
def _record(folder: Path, changed: int) -> _Stored | None:
    try:
        return _load(folder)
    except BlindspotError:
        return None


def summary(rows: list[StressRow]) -> Mapping[str, int]:
    """How many tests said what."""
    return {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
