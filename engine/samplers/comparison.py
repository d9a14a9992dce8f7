"""Methods compared at the same mean score: each finds the strength that reaches it, and what that cost is noted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.klsc.retrieval import matching_top_k
from engine.samplers.base import OnStep, Sampler, Samples, Score
from engine.samplers.instruments import Instruments
from engine.samplers.matching import match_strength
from engine.samplers.pool import Pool, score_pool, thumbnails
from engine.samplers.registry import Settings, create
from engine.samplers.subject import NEAR

STARTS = {
    "energydps": 0.15,
    "energydps-light": 0.15,
    "energydps-smc": 0.3,
    "retrieval-soft": 0.5,
    "maco": 0.1,
    "optimisation": 0.05,
    "soft-prompt": 0.2,
    "accentuation": 0.4,
}
"""Methods that are matched by a search over the strength, and where it starts."""
RETRIEVAL = "retrieval"
"""The one that is matched by how many of the best images it chooses from."""
METHODS = ("energydps", RETRIEVAL, "retrieval-soft", "maco", "optimisation", "soft-prompt", "accentuation")
"""What is compared if nothing else is said."""
MARGIN = 1.05
"""No sample is pushed once its score passes the target by this factor: what goes beyond is neither natural nor asked
for, and gives a mean to make up for samples that stay behind."""


class Costed(NamedTuple):
    """What some work gave and took."""

    result: Any
    seconds: float
    gigabytes: float = math.nan
    """Memory it needed at most; NaN where nobody looked."""


Watch = Callable[[Callable[[], Any]], Costed]
"""Does the work and says what it took."""


def timed(work: Callable[[], Any]) -> Costed:
    """Do the work and time it."""
    began = time.perf_counter()
    return Costed(work(), time.perf_counter() - began)


class Trial(NamedTuple):
    """One batch of a method."""

    strength: float
    samples: Samples
    seconds: float
    gigabytes: float

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(self.samples.scores.mean())


class Contest(NamedTuple):
    """What every method is asked for."""

    score: Score
    """What the images should excite."""
    target: float
    """Their mean score."""
    settings: Settings
    """Steps and states; strength and cap are the contest's own."""
    count: int = 8
    """Images of a method."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    tolerance: float = NEAR
    """Share of the target that a mean may miss."""
    evaluations: int = 8
    """Most strengths tried."""

    def told(self, strength: float) -> Settings:
        """What a method is told at a strength."""
        return replace(self.settings, strength=strength, cap=MARGIN * self.target)


class Entry(NamedTuple):
    """A method's images at the target, or as near to it as it came."""

    images: Tensor
    """[n, 3, H, W]; empty where none could be drawn."""
    score: float
    """Their mean score."""
    strength: float
    """For `retrieval`, how many best images it chose from."""
    matched: bool
    """Whether the mean lies within the tolerance."""
    trials: int
    seconds: float
    """Of drawing a sample at the strength found, preparation shared among the samples included."""
    gigabytes: float
    """Of drawing the batch, per sample."""
    note: str
    """Why it is not matched; empty where it is."""


@dataclass(frozen=True)
class _Watched:
    """A sampler that notes what each of its batches gave and took."""

    sampler: Sampler
    strength: float
    watch: Watch
    trials: list[Trial] = field(default_factory=list)

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        samples, seconds, gigabytes = self.watch(lambda: self.sampler.sample(score, n, seed, on_step))
        self.trials.append(Trial(self.strength, samples, seconds, gigabytes))
        return samples


def compete(name: str, models: Instruments, contest: Contest, watch: Watch = timed) -> Entry:
    """A method's images at the mean score that the contest asks for.

    Parameters
    ----------
    name
        A method of the registry that is pushed or retrieves.
    models
        Whose prior, encoder and corpus it uses.
    contest
        What is asked for.
    watch
        Measures what drawing takes.

    Raises
    ------
    BlindspotError
        If there is no such method. A target out of reach is a note of the entry.
    """
    require_comparable([name])
    trials: list[Trial] = []
    prepared, note = _prepare(name, models, contest, watch), ""

    def factory(strength: float) -> Sampler:
        sampler = create(name, models, contest.told(strength))
        return _Watched(replace(sampler, **prepared.result), strength, watch, trials)

    try:
        if name == RETRIEVAL:
            trials.append(_retrieve(models, contest, prepared.result["pool"], watch))
        else:
            match_strength(
                factory, contest.score, contest.target, start=STARTS[name], n=contest.count, seed=contest.seed,
                slack=0.0, relative=contest.tolerance, evaluations=contest.evaluations,
            )  # fmt: skip
    except BlindspotError as error:
        note = str(error)
    return _nearest(trials, contest, prepared, note)


def _retrieve(models: Instruments, contest: Contest, pool: Pool, watch: Watch) -> Trial:
    """Different ones of the K best real images whose mean is the target, evenly spread over their ranks."""
    best = matching_top_k(pool.scores, contest.target).k
    ranks = np.linspace(0, best - 1, min(contest.count, best)).round().astype(int)
    chosen = np.argsort(-pool.scores, kind="stable")[ranks]
    images, seconds, gigabytes = watch(lambda: thumbnails(models.atlas, pool.images[chosen], models.encoder.spec))
    scores = torch.from_numpy(pool.scores[chosen]).float()
    return Trial(best, Samples(images.to(models.device), scores, scores[None]), seconds, gigabytes)


def require_comparable(names: Sequence[str]) -> None:
    """Raise `BlindspotError` for a method that cannot be brought to a mean score."""
    for name in names:
        if name not in STARTS and name != RETRIEVAL:
            raise BlindspotError(f"Method {name!r} cannot be compared: choose among {', '.join([RETRIEVAL, *STARTS])}.")


def _prepare(name: str, models: Instruments, contest: Contest, watch: Watch) -> Costed:
    """What a method does once for all strengths, as arguments of its sampler."""
    if name.startswith(RETRIEVAL):
        spec = models.encoder.spec
        found = watch(lambda: score_pool(models.atlas, contest.score, spec, models.device))
        return found._replace(result={"pool": found.result})
    if name == "soft-prompt":
        sampler = create(name, models, contest.told(0.0))
        found = watch(lambda: sampler.learn(contest.score, contest.seed))
        return found._replace(result={"learned": found.result})
    return Costed({}, 0.0, 0.0)


def _nearest(trials: list[Trial], contest: Contest, prepared: Costed, note: str) -> Entry:
    """The trial that came nearest to the target."""
    if not trials:
        return Entry(torch.empty(0, 3, 1, 1), math.nan, math.nan, False, 0, math.nan, math.nan, note)
    best = min(trials, key=lambda trial: abs(trial.mean - contest.target))
    matched = abs(best.mean - contest.target) <= contest.tolerance * abs(contest.target)
    if not matched and not note:
        note = f"No trial of {len(trials)} came nearer than {best.mean:.4g}."
    return Entry(
        best.samples.images,
        best.mean,
        best.strength,
        matched,
        len(trials),
        (best.seconds + prepared.seconds) / contest.count,
        max(best.gigabytes, prepared.gigabytes) / contest.count,
        "" if matched else note,
    )
