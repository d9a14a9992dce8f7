"""Draw any number of images into a folder: in batches, each written as it comes, and resumed after an interruption.

The images of a batch are written one by one and then described by a record of their own in `drawing.parts`. The record
of the whole drawing is written last and replaces these, so that a folder with a `drawing.json` is whole.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.devices import drawing_placement
from engine.errors import BlindspotError
from engine.jobs import job_id
from engine.samplers.generation import MAX_AT_ONCE, GenerationRequest, Preparation, prepare_generation
from engine.samplers.records import (
    RECORD,
    generated_images,
    job_parameters,
    load_generation,
    record_of,
    save_images,
    save_record,
)

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.samplers.base import OnStep, Samples

PARTS, START = "drawing.parts", "start.json"
"""Folder of the batches' records, and its file that says of which drawing they are."""
CPU_BATCH, GPU_BATCH = 16, MAX_AT_ONCE
"""Images of a batch."""


def draw_into(
    folder: Path,
    atlas: Atlas,
    request: GenerationRequest,
    device: str | None = None,
    on_step: OnStep | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Draw images into a folder, or what an interrupted run of the same request has left to draw.

    Only one batch is held in memory. On a CPU the images are to the last bit those of `generate_images`. An earlier
    drawing in the folder is replaced.

    Parameters
    ----------
    folder
        Where `00.png`, `01.png` ... and, last, `drawing.json` are written.
    atlas, request, device, on_step, dtype
        As for `generate_images`, but for any count; `on_step` hears of each batch's steps.

    Returns
    -------
    The record, as `load_generation` reads it.

    Raises
    ------
    BlindspotError
        As `generate_images`, and if the folder cannot be written.
    Cancelled
        If `on_step` returned False; the same call then draws the rest.
    """
    from engine.samplers.calibration import Calibration

    folder, placement = Path(folder), drawing_placement(device, dtype)
    kind = placement.device.partition(":")[0]
    key = job_id({**job_parameters(atlas, request, placement.dtype), "drawn on": kind})
    start = _started(folder, key)
    found = Calibration(**start["matched"]) if start and start["matched"] else None
    ready = prepare_generation(atlas, request, placement.device, on_step, placement.dtype, found)
    try:
        if start is None:
            start = _start(folder, key, ready)
        parts = _draw(folder, ready, CPU_BATCH if kind == "cpu" else GPU_BATCH, on_step)
        record = _merged(parts)
        save_record({**record, "seconds": round(record["seconds"] + start["seconds"], 3)}, folder)
        shutil.rmtree(folder / PARTS)
        for name in {*start["replaces"]} - {*record["images"]}:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise BlindspotError(f"The drawing cannot be written to {folder}: {error.strerror or error}.") from error
    return load_generation(folder)


def _started(folder: Path, key: str) -> dict[str, Any] | None:
    """What an interrupted run of that key noted when it began; None if there was none."""
    try:
        start = json.loads((folder / PARTS / START).read_text())
        known = {"key", "matched", "seconds", "replaces"}
        return start if isinstance(start, dict) and known <= set(start) and start["key"] == key else None
    except (OSError, ValueError):
        return None


def _start(folder: Path, key: str, ready: Preparation) -> dict[str, Any]:
    """Take the folder over: note what is drawn and which images it replaces, which no record names any more."""
    replaces: set[str] = set()
    for place, name in [(folder, RECORD), *((folder / PARTS, file.name) for file in (folder / PARTS).glob("[0-9]*"))]:
        with suppress(BlindspotError):
            replaces.update(load_generation(place, name)["images"])
    (folder / RECORD).unlink(missing_ok=True)
    if (folder / PARTS).exists():
        shutil.rmtree(folder / PARTS)
    matched = None if ready.calibration is None else ready.calibration._asdict()
    start = {"key": key, "matched": matched, "seconds": ready.seconds, "replaces": sorted(replaces)}
    save_record(start, folder / PARTS, START)
    return start


def _draw(folder: Path, ready: Preparation, size: int, on_step: OnStep | None) -> list[dict[str, Any]]:
    """The records of all batches, of which those that an earlier run has drawn are read."""
    from engine.samplers.base import prepared

    request, sampler, parts = ready.request, None, []
    for first in range(0, request.count, size):
        n, name = min(size, request.count - first), f"{first:05d}.json"
        part = _drawn(folder, name)
        if part is None:
            began = time.perf_counter()
            samples = _slice(ready.samples, first, n)
            if samples is None:
                if sampler is None:
                    many = request.count > size
                    sampler = prepared(ready.sampler, ready.score, request.seed, on_step) if many else ready.sampler
                samples = sampler.sample(ready.score, n, request.seed, on_step, first)
            if not len(samples.images):
                break
            result = ready.result(samples, time.perf_counter() - began)
            part = record_of(result, [file.name for file in save_images(samples.images, folder, first)])
            save_record(part, folder / PARTS, name)
        parts.append({**part, "trace": part["trace"] if first < MAX_AT_ONCE else []})
        if len(part["images"]) < n:
            break
    return parts


def _drawn(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a batch that an earlier run has drawn, if its images are there."""
    try:
        part = load_generation(folder / PARTS, name)
        generated_images(folder, part)
    except BlindspotError:
        return None
    return part


def _slice(samples: Samples | None, first: int, n: int) -> Samples | None:
    """Some of the samples that are there; None if not all of them are."""
    from engine.samplers.base import Samples

    if samples is None or first + n > len(samples.images):
        return None
    rows = slice(first, first + n)
    return Samples(samples.images[rows], samples.scores[rows], samples.trace[:, rows])


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of the whole drawing."""

    def joined(key: str) -> list[Any]:
        return [value for part in parts for value in part[key]]

    tilts = [part["tilt"] for part in parts]
    return {
        **parts[0],
        **{key: joined(key) for key in ("images", "scores", "codes_scores")},
        "task_scores": None if parts[0]["task_scores"] is None else joined("task_scores"),
        "trace": [
            [score for part in parts if part["trace"] for score in part["trace"][step]][:MAX_AT_ONCE]
            for step in range(len(parts[0]["trace"]))
        ],
        "recognition": _merged_recognition([part["recognition"] for part in parts]),
        "tilt": None if None in tilts else merged_tilts(tilts, [len(part["images"]) for part in parts]),
        "seconds": sum(part["seconds"] for part in parts),
    }


def _merged_recognition(found: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What the judge said of all batches; nothing of any image if one batch was not judged."""
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    missing = next((one["missing"] for one in known if not one["recognised"]), "")
    seen = [] if missing else [one for part in known for one in part["recognised"]]
    return {"label": known[0]["label"], "recognised": seen, "missing": missing}


def merged_tilts(tilts: Sequence[Mapping[str, Any]], filters: Sequence[int]) -> dict[str, Any]:
    """What the particle filters of several batches say of their tilt together.

    Parameters
    ----------
    tilts
        The fields of each batch's `TiltEstimate`.
    filters
        How many filters each batch had.

    Returns
    -------
    The fields of the `TiltEstimate` of all filters, exactly as if they had run in one batch: with Z the mean of the
    filters' estimates and w_b = n_b Z_b / sum n Z a batch's share, the effective number of particles is
    1 / sum w_b^2 / e_b, beta E s is sum w_b (KL_b + log Z_b), and the variance of the filters' estimates is that within
    and between the batches.
    """
    count, top = sum(filters), max(tilt["log_partition"] for tilt in tilts)
    each = [math.exp(tilt["log_partition"] - top) for tilt in tilts]
    mean = sum(n * z for n, z in zip(filters, each, strict=True)) / count
    log_partition, squares, level, inverse = top + math.log(mean), 0.0, 0.0, 0.0
    for tilt, n, z in zip(tilts, filters, each, strict=True):
        share, ratio = n * z / (count * mean), z / mean
        within = (tilt["standard_error"] or 0.0) ** 2 * n * (n - 1) if n > 1 else 0.0
        squares += within * ratio**2 + n * (ratio - 1) ** 2
        level += share * (tilt["kl_to_prior"] + tilt["log_partition"])
        inverse += share**2 / tilt["effective_particles"]
    return {
        "beta": tilts[0]["beta"],
        "log_partition": log_partition,
        "standard_error": math.sqrt(squares / (count - 1) / count) if count > 1 else math.nan,
        "effective_particles": 1 / inverse,
        "particles": sum(tilt["particles"] for tilt in tilts),
        "kl_to_prior": level - log_partition,
    }
