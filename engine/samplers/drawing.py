"""Draw a concept of an atlas: the one function behind the app's Generate and `python -m precompute sample`.

Torch is imported on the first drawing, not with this module.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.errors import BlindspotError
from engine.jobs import Job, JobQueue, Task

if TYPE_CHECKING:
    from engine.samplers.base import OnStep, Samples, StepEvent
    from engine.samplers.instruments import AtlasLike

METHOD = "energydps"
COUNT = 4
STEPS = 40
STRENGTH = 0.3
MAX_COUNT = 64
REFERENCES = 4
OVERSHOOT = 1.25
"""A sample is pushed until its score is this many times that of the best real image."""


@dataclass(frozen=True)
class Reference:
    """A real image to compare a drawing with."""

    image: int
    """Its id in the atlas."""
    score: float
    """Its score, by the same measure as the drawing's."""


@dataclass(frozen=True)
class Drawing:
    """Images drawn for a concept, and what they are to be compared with."""

    samples: Samples
    """Images, scores s_k and their course over the steps."""
    codes_scores: tuple[float, ...]
    """The same reduction of the final sparse codes, one per image."""
    references: tuple[Reference, ...]
    """The best real images, best first; empty when no real image has the concept."""
    parameters: Mapping[str, Any]
    """What was asked for: concept, method, count, seed, steps, strength."""
    seconds: float
    """Time the sampling took."""

    @property
    def reference_score(self) -> float | None:
        """Mean score of the references; None when there are none."""
        scores = [reference.score for reference in self.references]
        return sum(scores) / len(scores) if scores else None


@dataclass(frozen=True)
class Order:
    """What to draw; everything but the atlas that the images depend on."""

    concept: int
    method: str = METHOD
    count: int = COUNT
    seed: int = 0
    steps: int = STEPS
    strength: float = STRENGTH

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise BlindspotError(f"{self.count} images were asked for: ask for 1 to {MAX_COUNT}.")
        if self.seed < 0:
            raise BlindspotError(f"The seed {self.seed} is negative: choose 0 or more.")


def draw_concept(
    atlas: AtlasLike,
    concept: int,
    *,
    method: str = METHOD,
    count: int = COUNT,
    seed: int = 0,
    steps: int = STEPS,
    strength: float = STRENGTH,
    device: str | None = None,
    on_step: OnStep | None = None,
) -> Drawing:
    """Draw images that excite one concept of an atlas and, for comparison, score the best real ones.

    Parameters
    ----------
    atlas
        An open atlas; its encoder, dictionary and prior are loaded once per process.
    concept
        Id of the concept.
    method
        A name of `engine.samplers.registry.SAMPLERS`.
    count, seed
        How many images; image i depends on (seed, i) alone.
    steps, strength
        Reverse steps, and how hard to push towards the concept (`EnergyDPS.strength`), which ends where a sample
        excites it a little more than the best real image does.
    device
        "cpu", "cuda" ...; None takes the GPU if there is one.
    on_step
        Hears of every step and may cancel.

    Raises
    ------
    BlindspotError
        If the atlas has no such concept, no prior or a broken one, or the method is unknown.
    Cancelled
        If `on_step` said so.
    """
    import torch

    from engine.samplers.instruments import Instruments
    from engine.samplers.registry import Settings, create
    from engine.samplers.score import ConceptScore

    order = Order(int(concept), method, count, seed, steps, strength)
    instruments = Instruments(atlas, device)
    score = ConceptScore(instruments.encoder, instruments.dictionary, [order.concept])
    references = best_real(instruments, score)
    sampler = create(method, instruments, Settings(steps, strength, _cap(references)))
    began = time.perf_counter()
    samples = sampler.sample(score, count, seed, on_step)
    seconds = time.perf_counter() - began
    with torch.no_grad():
        codes_scores = tuple(score.codes_score(samples.images).tolist())
    return Drawing(samples, codes_scores, references, asdict(order), seconds)


def best_real(instruments: Any, score: Any, count: int = REFERENCES) -> tuple[Reference, ...]:
    """The best real images of a score's concept with their scores, best first; empty when there are none."""
    from engine.samplers.retrieval import Retrieval

    retrieval = Retrieval(instruments.atlas, instruments.device)
    images = retrieval.exemplars(score.concepts[0], count)
    if not images:
        return ()
    scores = retrieval.sample(score, count).scores.tolist()
    found = [Reference(image, value) for image, value in zip(images, scores, strict=True)]
    return tuple(sorted(found, key=lambda reference: -reference.score))


def _cap(references: tuple[Reference, ...]) -> float | None:
    """Real images show how strong the concept gets: beyond that, pushing would only leave the natural images."""
    strongest = max((reference.score for reference in references), default=0.0)
    return OVERSHOOT * strongest if strongest > 0 else None


def warm_up(atlas: AtlasLike, device: str | None = None) -> None:
    """Load an atlas's models now, for instance in a thread while a page is being read.

    Raises
    ------
    BlindspotError
        If the atlas names no prior, or a model is missing or broken.
    """
    from engine.samplers.instruments import Instruments

    Instruments(atlas, device).load()


def submit_drawing(queue: JobQueue, atlas: AtlasLike, concept: int, **settings: Any) -> Job:
    """Queue a drawing, or join the one that is the same.

    The job's results are the files of `engine.samplers.files.save_drawing`; its previews show all samples in a row.

    Parameters
    ----------
    queue
        Its worker's device draws.
    atlas, concept
        As in `draw_concept`.
    settings
        Of method, count, seed, steps and strength, those that differ from the defaults.

    Raises
    ------
    BlindspotError
        If the queue is full or a setting makes no sense.
    """
    order = Order(int(concept), **settings)
    info = atlas.info
    world = {"path": str(atlas.path), "encoder": info.encoder, "dictionary": info.dictionary, "prior": info.prior}
    parameters = {"atlas": {**world, "stages": info.stages}, **asdict(order)}
    return queue.submit(parameters, partial(_draw_for_task, atlas, order))


def _draw_for_task(atlas: AtlasLike, order: Order, task: Task) -> None:
    """The work of a drawing's job."""
    from engine.samplers.files import preview_jpeg, save_drawing

    def report(event: StepEvent) -> None:
        task.report(event.step, event.steps, preview_jpeg(event.images()))

    task.report(0, order.steps)
    drawing = draw_concept(atlas, **asdict(order), device=task.device, on_step=report)
    save_drawing(drawing, task.folder)
