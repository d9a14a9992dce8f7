"""Drawings as jobs and as files: a folder with PNG images and the record that describes them, written last."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engine.atlas.schema import RENAMED_METHODS, prior_of
from engine.errors import BlindspotError
from engine.files import plain, write_whole
from engine.jobs import Job, JobQueue, Task
from engine.samplers.generation import (
    LATER_FIELDS,
    MAX_COUNT,
    STORED_NAMES,
    GenerationRequest,
    GenerationResult,
    Reference,
    generate_images,
)
from engine.samplers.recognition import recognise
from engine.samplers.registry import WITHOUT_PRIOR

if TYPE_CHECKING:
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.samplers.base import StepEvent

RECORD = "drawing.json"
"""File that describes the images of a folder; it is written last."""
LARGEST_RECORD, LARGEST_IMAGE = 8 << 20, 64 << 20
"""Bytes of a record and of an image that are read at most."""
IMAGE_NAME, PNG = re.compile(r"[0-9]{2,4}\.png"), b"\x89PNG\r\n\x1a\n"
OPTIONS = (
    "method", "count", "seed", "steps", "strength", "particles", "candidates", "score_cap", "guidance_end",
    "gradient", "zeta", *(name for name in LATER_FIELDS if name != "level"),
)  # fmt: skip
"""Fields of `GenerationRequest` that are command line options of the stored name."""


def submit_generation(
    queue: JobQueue, atlas: Atlas, request: GenerationRequest, holder: str | None = None, dtype: str | None = None
) -> Job:
    """Queue a generation on the queue's device, or join the one that is the same.

    The job's results are the files of `save_generation`; its previews show all samples in a row. `holder` is who asks
    (`JobQueue.submit`).

    Raises
    ------
    BlindspotError
        If the queue is full, or the holder has too many jobs.
    """

    def work(task: Task) -> None:
        def report(event: StepEvent) -> None:
            task.report(event.step, event.steps, preview_jpeg(event.images))

        task.report(0, request.steps)
        drawing = generate_images(atlas, request, task.device, report, dtype)
        save_generation(drawing, task.folder, str(atlas.path))

    judge = {"judge": atlas.info.judge} if atlas.info.judge else {}
    return queue.submit(job_parameters(atlas, request, dtype) | judge, work, holder)


def job_parameters(atlas: Atlas, request: GenerationRequest, dtype: str | None = None) -> dict[str, Any]:
    """Everything that the images depend on, as JSON: what names their job (`engine.jobs.job_id`).

    Not the device, which changes their last digits.
    """
    info, prior = atlas.info, prior_of(atlas.info, request.prior)
    models = {"path": str(atlas.path), "encoder": info.encoder, "dictionary": info.dictionary, "prior": prior}
    precision = {} if dtype in (None, "float32") else {"dtype": dtype}
    stages = {name: mark for name, mark in info.stages.items() if name != "recognition"}
    return {"atlas": {**models, "stages": stages}, **request.parameters(), **precision}


def save_generation(result: GenerationResult, folder: Path, atlas: str | None = None) -> list[Path]:
    """Write `00.png`, `01.png` ... and, last, `drawing.json`; each file appears whole or not at all.

    `atlas` is the path of the atlas, for a folder that holds drawings of several.

    Returns
    -------
    The image files, in order.

    Raises
    ------
    BlindspotError
        If the folder cannot be written.
    """
    files = save_images(result.samples.images, folder)
    record = record_of(result, [file.name for file in files]) | ({} if atlas is None else {"atlas": atlas})
    save_record(record, folder)
    return files


def save_images(images: Tensor, folder: Path, first: int = 0) -> list[Path]:
    """Write images [n, 3, height, width] in [0, 1] as PNG files numbered from `first` on; errors as for saving."""
    files = [folder / f"{number:02d}.png" for number in range(first, first + len(images))]
    try:
        for file, picture in zip(files, to_pil(images), strict=True):
            write_whole(file, partial(picture.save, format="PNG"))
    except OSError as error:
        raise BlindspotError(f"The drawing cannot be written to {folder}: {error.strerror or error}.") from error
    return files


def save_record(record: Mapping[str, Any], folder: Path, name: str = RECORD) -> None:
    """Write the record of a drawing; errors as for saving."""
    try:
        write_whole(folder / name, lambda path: path.write_text(json.dumps(plain(record), indent=1)))
    except OSError as error:
        raise BlindspotError(f"The drawing cannot be written to {folder}: {error.strerror or error}.") from error


def record_of(result: GenerationResult, images: Sequence[str]) -> dict[str, Any]:
    """What `load_generation` reads of a result whose image files have these names."""
    return {
        "parameters": result.request.parameters(),
        "images": list(images),
        "scores": result.samples.scores.tolist(),
        "codes_scores": list(result.codes_scores),
        "trace": result.samples.trace.tolist(),
        "references": [asdict(reference) for reference in result.references],
        "reference_score": result.reference_score,
        "matched": None if result.calibration is None else result.calibration._asdict(),
        "tilt": None if result.samples.tilt is None else result.samples.tilt._asdict(),
        "seconds": round(result.seconds, 3),
        "device": result.device,
        "dtype": result.dtype,
        "prior": None if result.prior is None else dict(result.prior),
        "task_scores": None if result.task_scores is None else list(result.task_scores),
        "recognition": None if result.recognition is None else asdict(result.recognition),
    }


def judge_generation(atlas: Atlas, folder: Path) -> dict[str, Any]:
    """Return the record of a saved generation, its images judged now if they were not: the atlas may be older.

    Raises
    ------
    BlindspotError
        As `load_generation` and `generated_images`.
    """
    record = load_generation(folder)
    found = record.get("recognition")
    if (found and found["recognised"]) or not atlas.has("recognition"):
        return record
    import torch

    from engine.samplers.models import ModelBundle

    pictures = [Image.open(io.BytesIO(content), formats=["PNG"]) for content in generated_images(folder, record)]
    pixels = np.stack([np.asarray(picture.convert("RGB"), np.float32) / 255 for picture in pictures])
    concepts = (record["parameters"]["concept"], *(record["parameters"].get("others") or ()))
    recognition = recognise(ModelBundle(atlas), concepts, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    if recognition is not None:
        save_record({**record, "recognition": asdict(recognition)}, folder)
    return load_generation(folder)


def load_generation(folder: Path, name: str = RECORD) -> dict[str, Any]:
    """Read the record of a saved generation, the file `name` of its folder.

    Returns
    -------
    A dict with `parameters` (`GenerationRequest.parameters`), `images` (file names), `scores`, `codes_scores`, `trace`
    [steps][n] (of the first `MAX_AT_ONCE` images), `references` (list of {image, score}, best first),
    `reference_score`, `matched` (the fields of a `Calibration`, or None), `tilt` (the fields of a `TiltEstimate`, or
    None), `seconds`, and in files that say so `device`, `dtype`, `prior` (`PriorSpec.to_dict`, None where the method
    has none), `task_scores` and `recognition` (the fields of a `Recognition`, or None). Links are not followed.

    Raises
    ------
    BlindspotError
        If the folder holds no drawing.
    """
    from pydantic import TypeAdapter

    try:
        content = read_own(Path(folder), name, LARGEST_RECORD)
        record, stored = json.loads(content), TypeAdapter(_StoredGeneration).validate_json(content, strict=True)
        names = {old: new for new, old in STORED_NAMES.items()}
        request = {names.get(name, name): value for name, value in stored.parameters.items()}
        TypeAdapter(GenerationRequest).validate_json(json.dumps(request), strict=True)
    except (OSError, ValueError, RecursionError) as error:
        raise BlindspotError(f"{folder} holds no drawing: generate it again.") from error
    sizes = {len(stored.images), len(stored.scores), len(stored.codes_scores)}
    if len(sizes) > 1 or not 1 <= len(stored.images) <= MAX_COUNT or not all(map(IMAGE_NAME.fullmatch, stored.images)):
        raise BlindspotError(f"{folder} holds no drawing: generate it again.")
    if stored.recognition and len(stored.recognition.recognised) not in (0, *sizes):
        raise BlindspotError(f"{folder} holds no drawing: generate it again.")
    return record


@dataclass(frozen=True)
class _StoredTilt:
    """The fields of a `TiltEstimate`, which alone may lack its error."""

    beta: float
    log_partition: float
    standard_error: float | None
    effective_particles: float
    particles: int
    kl_to_prior: float


@dataclass(frozen=True)
class _StoredRecognition:
    """The fields of a `Recognition`."""

    label: str
    recognised: list[bool]
    missing: str = ""


@dataclass(frozen=True)
class _StoredGeneration:
    """What must stand in a record for it to be shown."""

    parameters: dict[str, Any]
    images: list[str]
    scores: list[float]
    codes_scores: list[float]
    references: list[Reference]
    reference_score: float | None
    seconds: float
    tilt: _StoredTilt | None = None
    atlas: str | None = None
    device: str | None = None
    dtype: str | None = None
    prior: dict[str, Any] | None = None
    task_scores: list[float] | None = None
    recognition: _StoredRecognition | None = None


def stored_method(parameters: Mapping[str, Any]) -> str:
    """The method of stored parameters by its present name: those without a gradient's scale are older than it."""
    method = str(parameters.get("method", GenerationRequest.method))
    return method if isinstance(parameters.get("gradient"), str) else RENAMED_METHODS.get(method, method)


def generated_images(folder: Path, record: Mapping[str, Any]) -> list[bytes]:
    """Read the PNG files that a record of `load_generation` names; links and other kinds of files are not followed.

    Raises
    ------
    BlindspotError
        If one is missing or is no PNG.
    """
    try:
        files = [read_own(Path(folder), name, LARGEST_IMAGE) for name in record["images"]]
    except (OSError, ValueError) as error:
        raise BlindspotError(f"An image in {folder} is missing or is no regular file: generate it again.") from error
    if not all(content.startswith(PNG) for content in files):
        raise BlindspotError(f"An image in {folder} is no PNG: generate it again.")
    return files


def read_own(folder: Path, name: str, limit: int) -> bytes:
    """Read a regular file of a folder; neither of them may be a link, and it may have `limit` bytes at most."""
    if folder.is_symlink() or (folder / name).is_symlink():  # where the flag below does not exist
        raise OSError(f"{folder / name} is a link")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(folder / name, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{folder / name} is no regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{folder / name} has more than {limit} bytes")
    return content


def finished_generations(queue: JobQueue, atlas: Atlas, concept: int | None = None) -> list[tuple[Job, dict[str, Any]]]:
    """All finished generations of one concept of an atlas, or of all, also of earlier processes, newest first."""
    folders = ((job, job.result_dir) for job in queue.finished())
    found = ((job, _record(folder, folder.stat().st_mtime_ns)) for job, folder in folders if folder)
    return [
        (job, record)
        for job, record in found
        if record and record.get("atlas") == str(atlas.path) and concept in (None, record["parameters"]["concept"])
    ]


@lru_cache(maxsize=512)
def _record(folder: Path, changed: int) -> dict[str, Any] | None:
    try:
        return load_generation(folder)
    except BlindspotError:
        return None


def drawn_with(record: Mapping[str, Any]) -> str:
    """The prior, device and task of a drawing's record in a few words; empty for a record that does not say them."""
    prior, settings = record.get("prior"), record["parameters"]
    words = []
    if isinstance(prior, Mapping):
        name = f"{settings['prior']}, " if settings.get("prior") else ""
        words.append(f"prior {name}{prior.get('id')} ({prior.get('kind', 'latent')})")
    elif stored_method(settings) in WITHOUT_PRIOR:
        words.append("without a prior")
    if settings.get("text"):
        words.append(f"to fit “{settings['text']}”")
    if settings.get("like"):
        words.append(f"to resemble {settings['like']} by {settings.get('by', 'encoder')}")
    if record.get("device"):
        words.append(f"on {record['device']} in {record.get('dtype', 'float32')}")
    return ", ".join(words)


def tilt_sentence(tilt: Mapping[str, Any]) -> str:
    """What stands beside samples of a tilt; `tilt` has the fields of a `TiltEstimate`."""
    error = tilt["standard_error"]
    known = "" if error is None or math.isnan(error) else f" ± {error:.2g}"
    return (
        f"Tilt p exp(βs) with β = {tilt['beta']:.3g}: log-partition {tilt['log_partition']:.3g}{known}, "
        f"KL to the prior {tilt['kl_to_prior']:.3g} nats, from {tilt['effective_particles']:.3g} effective particles "
        f"of {int(tilt['particles'])}"
    )


def to_pil(images: Tensor) -> list[Image.Image]:
    """Images [n, 3, height, width] in [0, 1] as 8-bit pictures."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def preview_jpeg(images: Tensor, quality: int = 85) -> bytes:
    """Images [n, 3, height, width] in [0, 1], side by side, as one JPEG."""
    row = np.concatenate([np.asarray(picture) for picture in to_pil(images)], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def reproduction_command(parameters: Mapping[str, Any], atlas: str | Path = "ATLAS", out: str | Path = "DIR") -> str:
    """The command line that generates the same images again.

    Parameters
    ----------
    parameters
        As `GenerationRequest.parameters` gives them and a record or the atlas's gallery stores them; what is missing,
        None or NaN has its default value, and so does not appear.
    atlas, out
        Folders.
    """
    defaults = {field.name: field.default for field in fields(GenerationRequest)}
    parameters = {**parameters, "method": stored_method(parameters)}
    if parameters.get("gradient") == ("raw" if parameters["method"] == "energydps" else "eps"):
        parameters["gradient"] = None
    words = ["python", "-m", "precompute", "sample", str(atlas), "--concept", str(parameters["concept"])]
    for other in parameters.get("others") or ():
        words += ["--concept", str(other)]
    for weight in parameters.get("weights") or ():
        words += ["--weight", repr(float(weight))]
    for field in OPTIONS:
        name = STORED_NAMES.get(field, field)
        value = parameters.get(name)
        if value is None or value != value or value == defaults[field]:
            continue
        if not isinstance(value, str):
            value = str(int(value)) if value == int(value) else repr(float(value))
        words += [f"--{name.replace('_', '-')}", value]
    return shlex.join([*words, "--out", str(out)])
