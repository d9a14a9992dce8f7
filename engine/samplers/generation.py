"""Generate images of an atlas's concept: behind the app's Generate and `python -m precompute sample`.

Torch is imported on the first generation, not with this module.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from engine.atlas.schema import RENAMED_METHODS, prior_of
from engine.devices import drawing_placement
from engine.errors import BlindspotError
from engine.files import plain, write_whole
from engine.jobs import Job, JobQueue, Task
from engine.samplers.recognition import Recognition, recognise
from engine.samplers.registry import (
    GUIDED,
    OVERSHOOT,
    WITHOUT_PRIOR,
    WITHOUT_STRENGTH,
    SamplerSettings,
    TaskSettings,
    create,
    require_method,
)

if TYPE_CHECKING:
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.samplers.base import OnStep, Sampler, Samples, StepEvent
    from engine.samplers.calibration import Calibration
    from engine.samplers.models import ModelBundle
    from engine.samplers.scores import ConceptScore
    from engine.samplers.tasks import TaskScore

MAX_COUNT, MAX_CANDIDATES = 10_000, 256
MAX_AT_ONCE = 64
"""Images that are held in memory at once, and whose scores at each step are kept."""
REFERENCES = 4
"""Real images that a generation is compared with."""
REFERENCES_OF_EACH = 16
"""Best real images of each concept among which those of a set of concepts are looked for."""
RECORD = "drawing.json"
"""File that describes the images of a folder; it is written last."""
LARGEST_RECORD, LARGEST_IMAGE = 8 << 20, 64 << 20
"""Bytes of a record and of an image that are read at most."""
IMAGE_NAME, PNG = re.compile(r"[0-9]{2,4}\.png"), b"\x89PNG\r\n\x1a\n"
STORED_NAMES = {"candidates": "states", "score_cap": "cap", "guidance_end": "until", "like_by": "by"}
"""Fields of `GenerationRequest` that files, the gallery table and the command line spell otherwise."""
LATER_FIELDS = {
    "prior": None, "text": None, "text_encoder": None, "like": None, "like_by": "encoder", "task_weight": None,
}  # fmt: skip
"""Fields of `GenerationRequest` that older files lack, and their defaults."""
OPTIONS = (
    "method", "count", "seed", "steps", "strength", "particles", "candidates", "score_cap", "guidance_end",
    "gradient", "zeta", *LATER_FIELDS,
)  # fmt: skip
"""Fields of `GenerationRequest` that are command line options of the stored name."""


@dataclass(frozen=True)
class Reference:
    """A real image to compare generated ones with."""

    image: int
    """Its id in the atlas."""
    score: float
    """Its score, by the same measure as the generated images'."""


@dataclass(frozen=True)
class GenerationRequest(SamplerSettings, TaskSettings):
    """What to generate; everything but the atlas that the images depend on.

    In a request, a `score_cap` of None means `OVERSHOOT` times the best real image's score.

    Raises
    ------
    BlindspotError
        For what makes no sense.
    """

    concept: int
    """Id of the concept."""
    method: str = "energy-guidance"
    """A name of `engine.samplers.registry.SAMPLERS`."""
    count: int = 4
    """How many images."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    others: tuple[int, ...] = ()
    """Further concepts of a weighted set."""
    weights: tuple[float, ...] = ()
    """A weight for the concept and for each of the others; all 1 when empty."""
    match: bool = False
    """Look for the strength at which the mean score is that of the best real images, starting from `strength`; cap and
    end of guidance are then by default those of `SamplerSettings.towards`."""
    prior: str | None = None
    """Name of the diffusion prior, where the atlas names several; None: its first."""
    task_weight: float | None = None
    """What a unit of the task is worth in units of the score, eta / beta; None: the best real images' mean score."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise BlindspotError(f"{self.count} images were asked for: ask for 1 to {MAX_COUNT}.")
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise BlindspotError(f"A sample cannot begin as {self.candidates} states: choose 1 to {MAX_CANDIDATES}.")
        if self.seed < 0:
            raise BlindspotError(f"The seed {self.seed} is negative: choose 0 or more.")
        if self.weights and (len(self.weights) != len(self.concepts) or not all(map(math.isfinite, self.weights))):
            raise BlindspotError(
                f"The weights {list(self.weights)} do not fit concepts {list(self.concepts)}: "
                "give one finite number each."
            )
        if self.score_cap is not None and not (math.isfinite(self.score_cap) and self.score_cap > 0):
            raise BlindspotError(f"The cap {self.score_cap} is no score that a push could reach: choose one above 0.")
        if self.guidance_end is not None and not 0 < self.guidance_end <= 1:
            raise BlindspotError(f"Guidance ends after a share of the way between 0 and 1, not {self.guidance_end}.")
        if (self.gradient is not None or self.zeta is not None) and self.method not in GUIDED:
            raise BlindspotError(f"Method {self.method!r} has no gradient to scale: choose among {', '.join(GUIDED)}.")
        if self.zeta is not None and not (math.isfinite(self.zeta) and self.zeta > 0):
            raise BlindspotError(f"The step size zeta must be a number above 0, not {self.zeta}.")
        self.check()
        if self.task_weight is not None and not (self.given and math.isfinite(self.task_weight) and self.task_weight):
            raise BlindspotError(
                f"The weight of a task is a finite number other than 0 and goes with a text or an image, not "
                f"{self.task_weight}."
            )
        if self.given and self.method in WITHOUT_STRENGTH:
            raise BlindspotError(f"Method {self.method!r} has no strength, so it cannot serve a task: choose another.")
        if self.match and self.method in WITHOUT_STRENGTH:
            raise BlindspotError(
                f"Method {self.method!r} has no strength, so it cannot be matched to a score: leave out the matching."
            )

    @property
    def concepts(self) -> tuple[int, ...]:
        """All concepts of the set."""
        return (self.concept, *self.others)

    def parameters(self) -> dict[str, Any]:
        """The request as files store it; what came later appears only where it is set."""
        return {
            STORED_NAMES.get(name, name): value
            for name, value in asdict(self).items()
            if name not in LATER_FIELDS or value != LATER_FIELDS[name]
        }


@dataclass(frozen=True)
class GenerationResult:
    """Generated images, and what they are to be compared with."""

    samples: Samples
    """Images, scores s_k and their course over the steps."""
    codes_scores: tuple[float, ...]
    """The same reduction of the final sparse codes, one per image."""
    references: tuple[Reference, ...]
    """The best real images, best first; empty when no real image has the concept."""
    request: GenerationRequest
    """The request with the cap, the end of guidance and the calibrated strength that were used."""
    seconds: float
    """Time the sampling took."""
    calibration: Calibration | None = None
    """How the strength was found, where a mean score was to be reached."""
    device: str = "cpu"
    """Where the images were drawn."""
    dtype: str = "float32"
    """Precision of encoder and prior."""
    prior: Mapping[str, Any] | None = None
    """What the atlas says of the prior; None where the method has none."""
    task_scores: tuple[float, ...] | None = None
    """How well each image serves the task; None where there is none."""
    recognition: Recognition | None = None
    """Whether the atlas's judge sees the concept in each image; None where it stands for none of its labels."""

    @property
    def reference_score(self) -> float | None:
        """Mean score of the references; None when there are none."""
        scores = [reference.score for reference in self.references]
        return sum(scores) / len(scores) if scores else None


class Preparation(NamedTuple):
    """All that precedes the drawing of a request's images."""

    models: ModelBundle
    score: ConceptScore
    task: TaskScore | None
    references: tuple[Reference, ...]
    request: GenerationRequest
    """With everything that was left open."""
    sampler: Sampler
    calibration: Calibration | None
    samples: Samples | None
    """The first images, where the search for a strength has drawn them."""
    seconds: float
    """Time the search took."""

    def result(self, samples: Samples, seconds: float) -> GenerationResult:
        """What was drawn, with its scores."""
        import torch

        with torch.no_grad():
            codes_scores = tuple(self.score.codes_score(samples.images).tolist())
            task_scores = None if self.task is None else tuple(self.task(samples.images).tolist())
        models, prior = self.models, None if self.request.method in WITHOUT_PRIOR else self.models.prior_spec
        return GenerationResult(
            samples, codes_scores, self.references, self.request, seconds, self.calibration, models.device,
            models.dtype, prior, task_scores, recognise(models, self.request.concepts, samples.images),
        )  # fmt: skip


def generate_images(
    atlas: Atlas,
    request: GenerationRequest,
    device: str | None = None,
    on_step: OnStep | None = None,
    dtype: str | None = None,
) -> GenerationResult:
    """Draw images that excite a concept of an atlas, or a weighted set, and score the best real ones for comparison.

    All are held in memory, `MAX_AT_ONCE` at most; `engine.samplers.batches.draw_into` draws any number into a folder.

    Parameters
    ----------
    atlas
        An open atlas; its encoder, dictionary and prior are loaded once per process.
    request
        What to draw.
    device, dtype
        Where and how precisely, see `engine.devices.drawing_placement`.
    on_step
        Called after every step; may cancel.

    Raises
    ------
    BlindspotError
        If the atlas has no such concept or it is dead, there is no prior or a broken one, the method is unknown, the
        machine has no such device, there is no such image or encoder for the task, or the score to match is out of
        reach; or for too many images.
    Cancelled
        If `on_step` returned False.
    """
    if request.count > MAX_AT_ONCE:
        raise BlindspotError(
            f"{request.count} images are too many to hold in memory: ask for {MAX_AT_ONCE} at most, or draw them into "
            "a folder with `sample --out`."
        )
    ready = prepare_generation(atlas, request, device, on_step, dtype)
    began, samples = time.perf_counter(), ready.samples
    if samples is None:
        samples = ready.sampler.sample(ready.score, request.count, request.seed, on_step)
    return ready.result(samples, ready.seconds + time.perf_counter() - began)


def prepare_generation(
    atlas: Atlas,
    request: GenerationRequest,
    device: str | None = None,
    on_step: OnStep | None = None,
    dtype: str | None = None,
    calibration: Calibration | None = None,
) -> Preparation:
    """Load the models, score the best real images and settle what a request leaves open.

    Parameters and errors as for `generate_images`; a `calibration` from an earlier run saves the search for a strength.
    """
    from engine.samplers.calibration import mean_of_best, sample_calibrated
    from engine.samplers.models import ModelBundle
    from engine.samplers.scores import ConceptScore
    from engine.samplers.tasks import injected, task_of

    require_method(request.method)
    _require_alive(atlas, request.concepts)
    models = ModelBundle(atlas, *drawing_placement(device, dtype), request.prior)
    score = ConceptScore(models.encoder, models.dictionary, request.concepts, request.weights or None)
    target, task, references = math.nan, task_of(models, request), best_real_images(models, score)
    default = replace(request, score_cap=default_cap(references), guidance_end=1.0)
    if request.method in GUIDED:  # the name of a method alone meant another scale in older files
        request = replace(request, gradient=request.gradient or ("raw" if request.method == "energydps" else "eps"))
    if request.match:
        target = mean_of_best([reference.score for reference in references])
        default = default.towards(target)
    if request.score_cap is not None and request.score_cap < target:
        raise BlindspotError(
            f"The cap {request.score_cap:g} lies below the mean score to match, {target:.4g}: choose a higher one."
        )
    cap, end = request.score_cap or default.score_cap, request.guidance_end or default.guidance_end
    request = replace(request, score_cap=cap, guidance_end=end)
    if task is not None and request.task_weight is None:
        weight = mean_of_best([reference.score for reference in references])
        if weight <= 0:
            raise BlindspotError(f"The best real images score {weight:.3g}, so a weight of the task must be given.")
        request = replace(request, task_weight=weight)
    ratio, samples, began = request.task_weight or 0.0, None, time.perf_counter()

    def sampler(settings: SamplerSettings) -> Sampler:
        if task is None:
            return create(request.method, models, settings)
        return injected(request.method, models, settings, task, ratio)

    if request.match and calibration is None:
        samples, calibration = sample_calibrated(
            lambda strength: sampler(replace(request, strength=strength)), score, target,
            count=min(request.count, MAX_AT_ONCE), start=request.strength, seed=request.seed, on_step=on_step,
        )  # fmt: skip
    if calibration is not None:
        request = replace(request, strength=calibration.strength)
    seconds = time.perf_counter() - began
    return Preparation(models, score, task, references, request, sampler(request), calibration, samples, seconds)


def best_real_images(models: ModelBundle, score: ConceptScore, count: int = REFERENCES) -> tuple[Reference, ...]:
    """The real images with the highest scores, best first; empty when none has one of the score's concepts.

    For a single concept these are its best exemplars, for a set the best of the exemplars of all its concepts.
    """
    import torch

    from engine.samplers.models import thumbnails

    atlas, each = models.atlas, count if len(score.concepts) == 1 else REFERENCES_OF_EACH
    images = [int(image) for k in score.concepts for image in atlas.exemplars("real", k, count=each)["image"]]
    images = list(dict.fromkeys(images))
    if not images:
        return ()
    with torch.no_grad():
        scores = score(thumbnails(atlas, images, score.encoder.spec).to(models.device)).tolist()
    found = [Reference(image, value) for image, value in zip(images, scores, strict=True)]
    return tuple(sorted(found, key=lambda reference: -reference.score)[:count])


def default_cap(references: tuple[Reference, ...]) -> float | None:
    """Real images show how strong the concept gets: beyond that, pushing would only leave the natural images."""
    strongest = max((reference.score for reference in references), default=0.0)
    return OVERSHOOT * strongest if strongest > 0 else None


def _require_alive(atlas: Atlas, concepts: tuple[int, ...]) -> None:
    """Raise `BlindspotError` for a concept that the atlas does not have, or that never fires."""
    dead = atlas.concepts["dead"]
    wrong = [concept for concept in concepts if not 0 <= concept < len(dead)]
    if wrong:
        raise BlindspotError(f"There is no concept {wrong[0]}: choose from 0 to {len(dead) - 1}.")
    gone = [concept for concept in concepts if dead.iat[concept]]
    if gone:
        raise BlindspotError(
            f"Concept {gone[0]} of atlas {atlas.info.called} is dead, no real image excites it: choose a live one."
        )


def warm_up(atlas: Atlas, device: str | None = None, dtype: str | None = None, prior: str | None = None) -> None:
    """Load an atlas's models now, for instance in a thread while a page is being read.

    Raises
    ------
    BlindspotError
        If the atlas names no prior, or a model is missing or broken.
    """
    from engine.samplers.models import ModelBundle

    ModelBundle(atlas, *drawing_placement(device, dtype), prior).load()


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


def finished_generations(queue: JobQueue, atlas: Atlas, concept: int) -> list[tuple[Job, dict[str, Any]]]:
    """All finished generations of one concept of an atlas, also of earlier processes, newest first."""
    folders = ((job, job.result_dir) for job in queue.finished())
    found = ((job, _record(folder, folder.stat().st_mtime_ns)) for job, folder in folders if folder)
    return [
        (job, record)
        for job, record in found
        if record and record.get("atlas") == str(atlas.path) and record["parameters"]["concept"] == concept
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
