"""Generate images of an atlas's concept: behind the app's Generate and `python -m precompute sample`.

Torch is imported on the first generation, not with this module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.devices import drawing_placement
from engine.errors import BlindspotError
from engine.samplers.recognition import Recognition, recognise
from engine.samplers.registry import (
    GUIDANCE_END,
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
    from engine.atlas.reader import Atlas
    from engine.samplers.base import OnStep, Sampler, Samples
    from engine.samplers.calibration import Calibration
    from engine.samplers.models import ModelBundle
    from engine.samplers.scores import ConceptScore
    from engine.samplers.tasks import TaskScore

MAX_COUNT, MAX_CANDIDATES, MAX_LEVEL = 10_000, 256, 4
MAX_AT_ONCE = 64
"""Images that are held in memory at once, and whose scores at each step are kept."""
REFERENCES = 4
"""Real images that a generation is compared with."""
REFERENCES_OF_EACH = 16
"""Best real images of each concept among which those of a set of concepts are looked for."""
STORED_NAMES = {"candidates": "states", "score_cap": "cap", "guidance_end": "until", "like_by": "by"}
"""Fields of `GenerationRequest` that files, the gallery table and the command line spell otherwise."""
LATER_FIELDS = {
    "prior": None, "text": None, "text_encoder": None, "like": None, "like_by": "encoder", "task_weight": None,
    "level": 1.0,
}  # fmt: skip
"""Fields of `GenerationRequest` that older files lack, and their defaults."""


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

    In a request, a `score_cap` of None means `OVERSHOOT` times the best real images' mean score.

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
    level: float = 1.0
    """The mean score that `match` looks for, in units of the best real images'."""
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
        if not 0 < self.level <= MAX_LEVEL:
            raise BlindspotError(
                f"A share of {self.level:g} of the real images' score cannot be matched: give up to {MAX_LEVEL}."
            )
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
    require_alive(atlas, request.concepts)
    models = ModelBundle(atlas, *drawing_placement(device, dtype), request.prior)
    score = ConceptScore(models.encoder, models.dictionary, request.concepts, request.weights or None)
    target, task, references = math.nan, task_of(models, request), best_real_images(models, score)
    default = replace(request, score_cap=default_cap(references), guidance_end=GUIDANCE_END)
    if request.method in GUIDED:  # the name of a method alone meant another scale in older files
        request = replace(request, gradient=request.gradient or ("raw" if request.method == "energydps" else "eps"))
    if request.match:
        target = request.level * mean_of_best([reference.score for reference in references])
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
    mean = sum(reference.score for reference in references) / max(1, len(references))
    return OVERSHOOT * mean if mean > 0 else None


def require_alive(atlas: Atlas, concepts: tuple[int, ...]) -> None:
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
