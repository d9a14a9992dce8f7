"""Members of invariant sets as jobs and as files: a folder with PNG images and the record that describes them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BlindspotError
from engine.invariance.request import MAX_MEMBERS, InvariantRequest
from engine.invariance.sampling import CUTOFFS, InvariantResult, sample_invariants

if TYPE_CHECKING:
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.jobs import Job, JobQueue, Task

RECORD = "members.json"
"""File that describes the members of a folder; it is written last."""
LARGEST_RECORD = 8 * 2**20
OPTIONS = ("image", "count", "seed", "steps", "signal", "method", "tolerance", "walk_steps", "iterations", "low_pass",
           "optimiser", "learning_rate", "keep_norm", "choose", "choice")  # fmt: skip
"""Fields of a request that the command `invariants` has options for, with their names below."""
OPTION_NAMES = {"walk_steps": "walk"}


def save_invariants(result: InvariantResult, folder: Path, atlas: str | None = None) -> list[Path]:
    """Write `00.png`, `01.png` ... and, last, `members.json`; each file appears whole or not at all.

    Raises
    ------
    BlindspotError
        If the folder cannot be written.
    """
    from engine.samplers.records import save_images, save_record

    files = save_images(result.images, folder)
    save_record({"atlas": atlas, "images": [file.name for file in files], **result.record()}, folder, RECORD)
    return files


@dataclass(frozen=True)
class _StoredMember:
    responses: tuple[float, ...]
    residual: float
    converged: bool
    curve: tuple[float, ...]


@dataclass(frozen=True)
class _StoredSpread:
    concept: int
    name: str
    ratio: float | None
    mean: float
    present: float


@dataclass(frozen=True)
class _StoredMembers:
    """What a record must hold to be shown."""

    request: InvariantRequest
    images: tuple[str, ...]
    responses: tuple[str, ...]
    wanted: tuple[float, ...]
    members: tuple[_StoredMember, ...]
    evaluations: int
    acceptance: float | None
    varies: dict[str, tuple[_StoredSpread, ...]] | None
    seconds: float
    atlas: str | None = None
    query_curve: tuple[float, ...] | None = None
    chosen: tuple[int, ...] = ()


def load_invariants(folder: Path) -> dict[str, Any]:
    """Read the record of saved members; links are not followed.

    Returns
    -------
    A dict with `request` (the fields of an `InvariantRequest`), `images` (file names), `responses` (their names),
    `wanted` (f(x*)), `cutoffs`, `members` (the fields of a `Member` each), `evaluations`, `acceptance`, `varies` (the
    fields of a `Variation`, or None), `seconds` and `chosen` (places in `members`).

    Raises
    ------
    BlindspotError
        If the folder holds none.
    """
    from pydantic import TypeAdapter

    from engine.samplers.records import IMAGE_NAME, read_own

    try:
        content = read_own(Path(folder), RECORD, LARGEST_RECORD)
        record, stored = json.loads(content), TypeAdapter(_StoredMembers).validate_json(content, strict=True)
    except (OSError, ValueError, RecursionError) as error:
        raise BlindspotError(f"{folder} holds no members of an invariant set: draw them again.") from error
    fits = 1 <= len(stored.images) == len(stored.members) <= MAX_MEMBERS and all(
        map(IMAGE_NAME.fullmatch, stored.images)
    )
    numbers = [one for member in stored.members for one in (*member.responses, member.residual, *member.curve)]
    numbers += stored.query_curve or ()
    fits = fits and all(0 <= row < len(stored.members) for row in stored.chosen)
    curves = {len(member.curve) for member in stored.members} <= {len(CUTOFFS)}
    if not (fits and curves and all(map(math.isfinite, (*numbers, *stored.wanted, stored.seconds)))):
        raise BlindspotError(f"{folder} holds no members of an invariant set: draw them again.")
    return record


def submit_invariants(queue: JobQueue, atlas: Atlas, request: InvariantRequest, holder: str | None = None) -> Job:
    """Queue a search for members on the queue's device, or join the one that is the same.

    Raises
    ------
    BlindspotError
        If the queue is full, the holder has too many jobs, or the target cannot be read.
    """
    from engine.atlas.schema import prior_of
    from engine.invariance.parsing import parse_target

    parse_target(request.target)

    def work(task: Task) -> None:
        from engine.samplers.records import preview_jpeg

        def report(done: int, total: int, images: Tensor | None) -> None:
            task.report(done, total, None if images is None else preview_jpeg(images))

        task.report(0, 1)
        save_invariants(sample_invariants(atlas, request, task.device, report), task.folder, str(atlas.path))

    info = atlas.info
    models = {"path": str(atlas.path), "encoder": info.encoder, "dictionary": info.dictionary, "prior": prior_of(info)}
    return queue.submit({"invariants": asdict(request), "atlas": models | {"stages": dict(info.stages)}}, work, holder)


def finished_invariants(queue: JobQueue, atlas: Atlas) -> list[tuple[Job, dict[str, Any]]]:
    """All finished searches for members in an atlas, also of earlier processes, newest first."""
    folders = ((job, job.result_dir) for job in queue.finished())
    found = ((job, _record(folder, folder.stat().st_mtime_ns)) for job, folder in folders if folder)
    return [(job, record) for job, record in found if record and record.get("atlas") == str(atlas.path)]


@lru_cache(maxsize=512)
def _record(folder: Path, changed: int) -> dict[str, Any] | None:
    try:
        return load_invariants(folder)
    except BlindspotError:
        return None


def members_command(request: Mapping[str, Any], atlas: str | Path = "ATLAS", out: str | Path = "DIR") -> str:
    """The command line that draws the same members again, of the fields of an `InvariantRequest`."""
    usual = {field.name: field.default for field in fields(InvariantRequest)}
    words = ["python", "-m", "precompute", "invariants", str(atlas), "--target", str(request["target"])]
    values: Sequence[float] = request.get("values") or ()
    for number in values:
        words += ["--value", repr(float(number))]
    for name in OPTIONS:
        value = request.get(name, "none" if name == "low_pass" else None)  # records of old had no filters
        if value is not None and value != usual[name]:
            option = f"--{OPTION_NAMES.get(name, name.replace('_', '-'))}"
            words += ["--free-norm"] if name == "keep_norm" else [option, str(value)]
    return shlex.join([*words, "--out", str(out)])
