"""Draw a concept of an atlas: the one function behind the app's Generate and `python -m precompute sample`.

Torch is imported on the first drawing, not with this module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.errors import BlindspotError
from engine.jobs import Job, JobQueue, Task

if TYPE_CHECKING:
    from engine.samplers.base import OnStep, Samples, StepEvent
    from engine.samplers.instruments import AtlasLike, Instruments
    from engine.samplers.matching import Match
    from engine.samplers.score import ConceptScore

METHOD = "energydps"
COUNT = 4
STEPS = 40
STRENGTH = 0.2
PARTICLES = 4
STATES = 16
MAX_COUNT = 64
MOST_STATES = 256
REFERENCES = 4
CANDIDATES = 16
"""Best real images of each concept among which those of a set of concepts are looked for."""
UNPUSHED = ("prior", "retrieval")
"""Methods that no strength changes."""
OVERSHOOT = 1.25
"""A sample is pushed until its score is this many times that of the best real image, if nothing else is said."""


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
    """The fields of `Order` as they were used: a strength that was looked for is the one that was found."""
    seconds: float
    """Time the sampling took."""
    matched: Match | None = None
    """How the strength was found, where a mean score was to be reached."""

    @property
    def reference_score(self) -> float | None:
        """Mean score of the references; None when there are none."""
        scores = [reference.score for reference in self.references]
        return sum(scores) / len(scores) if scores else None


@dataclass(frozen=True)
class Order:
    """What to draw; everything but the atlas that the images depend on.

    Raises
    ------
    BlindspotError
        For what makes no sense.
    """

    concept: int
    """Id of the concept."""
    method: str = METHOD
    """A name of `engine.samplers.registry.SAMPLERS`."""
    count: int = COUNT
    """How many images."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    steps: int = STEPS
    """Reverse steps."""
    strength: float = STRENGTH
    """How hard to push towards the concept (`EnergyDPS.strength`)."""
    particles: int = PARTICLES
    """Particles behind each sample of a particle filter."""
    states: int = STATES
    """States that each sample of EnergyDPS begins as (`EnergyDPS.thinning`); 1 for Algorithm 1 alone."""
    others: tuple[int, ...] = ()
    """Further concepts of a weighted set."""
    weights: tuple[float, ...] = ()
    """A weight for the concept and for each of the others; all 1 when empty."""
    match: bool = False
    """Look for the strength at which the mean score is that of the best real images, starting from `strength`."""
    cap: float | None = None
    """Score beyond which a sample is not pushed. None: `OVERSHOOT` times the best real image's, and in a search for a
    score `registry.MARGIN` times that score."""
    until: float | None = None
    """Share of the way, from noise to image, that EnergyDPS guides. None: all of it, and in a search for a score
    `registry.UNTIL`."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise BlindspotError(f"{self.count} images were asked for: ask for 1 to {MAX_COUNT}.")
        if not 1 <= self.states <= MOST_STATES:
            raise BlindspotError(f"A sample cannot begin as {self.states} states: choose 1 to {MOST_STATES}.")
        if self.seed < 0:
            raise BlindspotError(f"The seed {self.seed} is negative: choose 0 or more.")
        if self.weights and (len(self.weights) != len(self.concepts) or not all(map(math.isfinite, self.weights))):
            raise BlindspotError(
                f"The weights {list(self.weights)} do not fit concepts {list(self.concepts)}: "
                "give one finite number each."
            )
        if self.cap is not None and not (math.isfinite(self.cap) and self.cap > 0):
            raise BlindspotError(f"The cap {self.cap} is no score that a push could reach: choose one above 0.")
        if self.until is not None and not 0 < self.until <= 1:
            raise BlindspotError(f"Guidance ends after a share of the way between 0 and 1, not {self.until}.")
        if self.match and self.method in UNPUSHED:
            raise BlindspotError(
                f"Method {self.method!r} has no strength, so it cannot be matched to a score: leave out the matching."
            )

    @property
    def concepts(self) -> tuple[int, ...]:
        """All concepts of the set."""
        return (self.concept, *self.others)


def draw_concept(
    atlas: AtlasLike,
    concept: int,
    *,
    device: str | None = None,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Drawing:
    """Draw images that excite a concept of an atlas, or a weighted set, and score the best real ones for comparison.

    Parameters
    ----------
    atlas
        An open atlas; its encoder, dictionary and prior are loaded once per process.
    concept
        Id of the concept.
    device
        "cpu", "cuda" ...; None takes the GPU if there is one.
    on_step
        Hears of every step and may cancel.
    settings
        Of the other fields of `Order`, those that differ from the defaults.

    Raises
    ------
    BlindspotError
        If the atlas has no such concept or it is dead, there is no prior or a broken one, the method is unknown, or the
        score to match is out of reach.
    Cancelled
        If `on_step` said so.
    """
    import torch

    from engine.samplers.instruments import Instruments
    from engine.samplers.matched import draw_matched
    from engine.samplers.matching import real_target
    from engine.samplers.registry import Settings, create, require_method
    from engine.samplers.score import ConceptScore

    order = Order(int(concept), **settings)
    require_method(order.method)
    _require_alive(atlas, order.concepts)
    instruments, match = Instruments(atlas, device), None
    score = ConceptScore(instruments.encoder, instruments.dictionary, order.concepts, order.weights or None)
    references = best_real(instruments, score)
    base, target = Settings(order.steps, order.strength, cap_of(references), order.particles, order.states), math.nan
    if order.match:
        target = real_target([reference.score for reference in references])
        base = base.towards(target)
    if order.cap is not None and order.cap < target:
        raise BlindspotError(
            f"The cap {order.cap:g} lies below the mean score to match, {target:.4g}: choose a higher one."
        )
    order = replace(order, cap=order.cap or base.cap, until=order.until or base.until)
    base = replace(base, cap=order.cap, until=order.until)
    began = time.perf_counter()
    if order.match:
        samples, match = draw_matched(
            lambda strength: create(order.method, instruments, replace(base, strength=strength)),
            score,
            target,
            count=order.count,
            start=order.strength,
            seed=order.seed,
            on_step=on_step,
        )
        order = replace(order, strength=match.strength)
    else:
        samples = create(order.method, instruments, base).sample(score, order.count, order.seed, on_step)
    seconds = time.perf_counter() - began
    with torch.no_grad():
        codes_scores = tuple(score.codes_score(samples.images).tolist())
    return Drawing(samples, codes_scores, references, asdict(order), seconds, match)


def best_real(instruments: Instruments, score: ConceptScore, count: int = REFERENCES) -> tuple[Reference, ...]:
    """The real images that a score of one or more concepts likes best, best first; empty when none has a concept.

    For a single concept these are its best exemplars, for a set the best of the exemplars of all its concepts.
    """
    import torch

    from engine.samplers.pool import thumbnails

    atlas, each = instruments.atlas, count if len(score.concepts) == 1 else CANDIDATES
    images = [int(image) for k in score.concepts for image in atlas.exemplars("real", k, count=each)["image"]]
    images = list(dict.fromkeys(images))
    if not images:
        return ()
    with torch.no_grad():
        scores = score(thumbnails(atlas, images, score.encoder.spec).to(instruments.device)).tolist()
    found = [Reference(image, value) for image, value in zip(images, scores, strict=True)]
    return tuple(sorted(found, key=lambda reference: -reference.score)[:count])


def _require_alive(atlas: AtlasLike, concepts: tuple[int, ...]) -> None:
    """Raise `BlindspotError` for a concept that the atlas does not have, or that never fires."""
    dead = atlas.concepts["dead"]
    wrong = [concept for concept in concepts if not 0 <= concept < len(dead)]
    if wrong:
        raise BlindspotError(f"There is no concept {wrong[0]}: choose from 0 to {len(dead) - 1}.")
    gone = [concept for concept in concepts if dead.iat[concept]]
    if gone:
        raise BlindspotError(
            f"Concept {gone[0]} of atlas {atlas.info.name!r} is dead, no real image excites it: choose a live one."
        )


def cap_of(references: tuple[Reference, ...]) -> float | None:
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
        Of the other fields of `Order`, those that differ from the defaults.

    Raises
    ------
    BlindspotError
        If the queue is full or a setting makes no sense.
    """
    order = Order(int(concept), **settings)
    return queue.submit(identity(atlas, order), partial(_draw_for_task, atlas, order))


def identity(atlas: AtlasLike, order: Order) -> dict[str, Any]:
    """All that the images of an order depend on, as JSON: what names its results (`engine.jobs.job_id`)."""
    info = atlas.info
    world = {"path": str(atlas.path), "encoder": info.encoder, "dictionary": info.dictionary, "prior": info.prior}
    return {"atlas": {**world, "stages": info.stages}, **asdict(order)}


def _draw_for_task(atlas: AtlasLike, order: Order, task: Task) -> None:
    """The work of a drawing's job."""
    from engine.samplers.files import preview_jpeg, save_drawing

    def report(event: StepEvent) -> None:
        task.report(event.step, event.steps, preview_jpeg(event.images()))

    task.report(0, order.steps)
    drawing = draw_concept(atlas, **asdict(order), device=task.device, on_step=report)
    save_drawing(drawing, task.folder)
