"""Methods compared at the same mean score: each finds the strength that reaches it, and what that cost is noted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.klsc.threshold import matching_top_k
from engine.samplers.base import Sampler, Samples, Score
from engine.samplers.calibration import Profiler, Timed, Trial, calibrate_strength, nearest, timed
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.registry import SamplerSettings, create
from engine.samplers.retrieval import Pool, score_pool
from precompute.studies.subject import NEAR

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


class Contest(NamedTuple):
    """What every method is asked for."""

    score: Score
    """What the images should excite."""
    target: float
    """Their mean score."""
    settings: SamplerSettings
    """Steps and states; strength, cap and the end of guidance are the contest's own."""
    count: int = 8
    """Images of a method."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    tolerance: float = NEAR
    """Share of the target that a mean may miss."""
    evaluations: int = 8
    """Most strengths tried."""

    def told(self, strength: float) -> SamplerSettings:
        """What a method is told at a strength."""
        return replace(self.settings.towards(self.target), strength=strength)


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


def compete(name: str, models: ModelBundle, contest: Contest, watch: Profiler = timed) -> Entry:
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
    drawn: dict[float, Trial] = {}
    prepared, note = _prepare(name, models, contest, watch), ""

    def factory(strength: float) -> Sampler:
        return replace(create(name, models, contest.told(strength)), **prepared.result)

    try:
        if name == RETRIEVAL:
            found = _retrieve(models, contest, prepared.result["pool"], watch)
            drawn[found.strength] = found
        else:
            calibrate_strength(
                factory, contest.score, contest.target, start=STARTS[name], n=contest.count, seed=contest.seed,
                slack=0.0, relative=contest.tolerance, evaluations=contest.evaluations, trials=drawn, profiler=watch,
            )  # fmt: skip
    except BlindspotError as error:
        note = str(error)
    return _entry(drawn, contest, prepared, note)


def _retrieve(models: ModelBundle, contest: Contest, pool: Pool, watch: Profiler) -> Trial:
    """Different ones of the K best real images whose mean is the target, evenly spread over their ranks."""
    best = matching_top_k(pool.scores, contest.target).k
    ranks = np.linspace(0, best - 1, min(contest.count, best)).round().astype(int)
    chosen = np.argsort(-pool.scores, kind="stable")[ranks]
    images, seconds, gigabytes = watch(lambda: thumbnails(models.atlas, pool.images[chosen], models.encoder.spec))
    scores = torch.from_numpy(pool.scores[chosen]).float()
    return Trial(Samples(images.to(models.device), scores, scores[None]), best, seconds, gigabytes)


def require_comparable(names: Sequence[str]) -> None:
    """Raise `BlindspotError` for a method that cannot be brought to a mean score."""
    for name in names:
        if name not in STARTS and name != RETRIEVAL:
            raise BlindspotError(f"Method {name!r} cannot be compared: choose among {', '.join([RETRIEVAL, *STARTS])}.")


def _prepare(name: str, models: ModelBundle, contest: Contest, watch: Profiler) -> Timed:
    """What a method does once for all strengths, as arguments of its sampler."""
    if name.startswith(RETRIEVAL):
        spec = models.encoder.spec
        found = watch(lambda: score_pool(models.atlas, contest.score, spec, models.device))
        return found._replace(result={"pool": found.result})
    if name == "soft-prompt":
        sampler = create(name, models, contest.told(0.0))
        found = watch(lambda: sampler.learn(contest.score, contest.seed))
        return found._replace(result={"learned": found.result})
    return Timed({}, 0.0, 0.0)


def _entry(drawn: dict[float, Trial], contest: Contest, prepared: Timed, note: str) -> Entry:
    """The drawing that came nearest to the target."""
    if not drawn:
        return Entry(torch.empty(0, 3, 1, 1), math.nan, math.nan, False, 0, math.nan, math.nan, note)
    best = nearest(drawn, contest.target)
    matched = abs(best.mean - contest.target) <= contest.tolerance * abs(contest.target)
    if not matched and not note:
        note = f"No trial of {len(drawn)} came nearer than {best.mean:.4g}."
    return Entry(
        best.samples.images,
        best.mean,
        best.strength,
        matched,
        len(drawn),
        (best.seconds + prepared.seconds) / contest.count,
        max(best.gigabytes, prepared.gigabytes) / contest.count,
        "" if matched else note,
    )
