"""Rival methods at the same mean score: each is calibrated to it, and what the drawing took is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.figures.images import SIDE, Block, Row, image_grid
from engine.figures.samplers import method_bars
from engine.klsc.threshold import matching_top_k
from engine.samplers.base import Sampler, Samples, Score
from engine.samplers.calibration import Profiler, Timed, Trial, Trials, calibrate_strength, nearest, timed
from engine.samplers.metrics import PriorReference, Quality
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.records import to_pil
from engine.samplers.registry import WITHOUT_PRIOR, SamplerSettings, create
from engine.samplers.retrieval import Pool, score_pool
from precompute.studies.base import TOLERANCE, DrawnUnit, Study, StudyInputs, concept_subject, image_block

STARTS = {
    "energy-guidance": 0.15,
    "energy-guidance-light": 0.15,
    "energydps": 0.3,
    "energydps-smc": 0.3,
    "retrieval-soft": 0.5,
    "maco": 0.1,
    "optimisation": 0.05,
    "soft-prompt": 0.2,
    "accentuation": 0.4,
}
"""Methods that are calibrated by their strength, and the first strength to try."""
RETRIEVAL = "retrieval"
"""The one that is calibrated by how many of the best images it chooses from."""
PRIOR_MARK = "@"
"""Between a method and the name of the prior that it draws from, where that is not the comparison's own."""
METHODS = (
    "energy-guidance", "energydps", RETRIEVAL, "retrieval-soft", "maco", "optimisation", "soft-prompt", "accentuation",
)  # fmt: skip
"""Compared by default."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What every method is asked for."""

    score: Score
    """What the images should excite."""
    target: float
    """Their mean score."""
    settings: SamplerSettings
    """Steps and candidates; strength, cap and the end of guidance are the comparison's own."""
    count: int = 8
    """Images of a method."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    tolerance: float = TOLERANCE
    """Share of the target that a mean may miss."""
    evaluations: int = 8
    """Most strengths tried."""

    def at(self, strength: float) -> SamplerSettings:
        """A sampler's settings at a strength."""
        return replace(self.settings.towards(self.target), strength=strength)


class MethodResult(NamedTuple):
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


def compare_method(
    name: str, models: ModelBundle, comparison: ComparisonSettings, profiler: Profiler = timed
) -> MethodResult:
    """Draw by a method at the mean score that the comparison asks for.

    Parameters
    ----------
    name
        A method of the registry that has a strength, or `retrieval`; with another of the atlas's priors as
        `method@prior`.
    models
        Whose prior, encoder and corpus it uses.
    comparison
        What is asked for.
    profiler
        Measures what drawing takes.

    Raises
    ------
    BlindspotError
        If there is no such method or prior. A target out of reach is a note of the result.
    """
    require_comparable([name])
    name, _, prior = name.partition(PRIOR_MARK)
    models = models.with_prior(prior) if prior else models
    trials: Trials = {}

    def sampler(strength: float) -> Sampler:
        created: Any = create(name, models, comparison.at(strength))
        return replace(created, **prepared.result)

    prepared, note = _prepare(name, models, comparison, profiler), ""
    try:
        if name == RETRIEVAL:
            found = _retrieve(models, comparison, prepared.result["pool"], profiler)
            trials[found.strength] = found
        else:
            calibrate_strength(
                sampler,
                comparison.score, comparison.target, start=STARTS[name], n=comparison.count, seed=comparison.seed,
                slack=0.0, relative=comparison.tolerance, evaluations=comparison.evaluations, trials=trials,
                profiler=profiler,
            )  # fmt: skip
    except BlindspotError as error:
        note = str(error)
    return _nearest_result(trials, comparison, prepared, note)


def require_comparable(names: Sequence[str]) -> None:
    """Raise `BlindspotError` for a method that cannot be brought to a mean score, or has no prior to choose."""
    for name, _, prior in (each.partition(PRIOR_MARK) for each in names):
        if name not in STARTS and name != RETRIEVAL:
            raise BlindspotError(f"Method {name!r} cannot be compared: choose among {', '.join([RETRIEVAL, *STARTS])}.")
        if prior and name in WITHOUT_PRIOR:
            raise BlindspotError(f"Method {name!r} does not draw from a prior, so {prior!r} cannot be its prior.")


def _prepare(name: str, models: ModelBundle, comparison: ComparisonSettings, profiler: Profiler) -> Timed:
    """What a method does once for all strengths, as arguments of its sampler."""
    if name.startswith(RETRIEVAL):
        spec = models.encoder.spec
        found = profiler(lambda: score_pool(models.atlas, comparison.score, spec, models.device))
        return found._replace(result={"pool": found.result})
    if name == "soft-prompt":
        sampler: Any = create(name, models, comparison.at(0.0))
        found = profiler(lambda: sampler.learn(comparison.score, comparison.seed))
        return found._replace(result={"learned": found.result})
    return Timed({}, 0.0, 0.0)


def _retrieve(models: ModelBundle, comparison: ComparisonSettings, pool: Pool, profiler: Profiler) -> Trial:
    """Different ones of the K best real images whose mean is the target, evenly spread over their ranks."""
    best = matching_top_k(pool.scores, comparison.target).k
    ranks = np.linspace(0, best - 1, min(comparison.count, best)).round().astype(int)
    chosen = np.argsort(-pool.scores, kind="stable")[ranks]
    images, seconds, gigabytes = profiler(lambda: thumbnails(models.atlas, pool.images[chosen], models.encoder.spec))
    scores = torch.from_numpy(pool.scores[chosen]).float()
    return Trial(Samples(images.to(models.device), scores, scores[None]), best, seconds, gigabytes)


def _nearest_result(trials: Trials, comparison: ComparisonSettings, prepared: Timed, note: str) -> MethodResult:
    """The trial that came nearest to the target, as a result."""
    if not trials:
        return MethodResult(torch.empty(0, 3, 1, 1), math.nan, math.nan, False, 0, math.nan, math.nan, note)
    best = nearest(trials, comparison.target)
    matched = abs(best.mean - comparison.target) <= comparison.tolerance * abs(comparison.target)
    if not matched and not note:
        note = f"No trial of {len(trials)} came nearer than {best.mean:.4g}."
    seconds = (best.seconds + prepared.seconds) / comparison.count
    gigabytes = max(best.gigabytes, prepared.gigabytes) / comparison.count
    images, note = best.samples.images, "" if matched else note
    return MethodResult(images, best.mean, best.strength, matched, len(trials), seconds, gigabytes, note)


def methods_study(inputs: StudyInputs, methods: Sequence[str] | None) -> Study:
    """The study `methods`: every method at the mean score of the best real images; errors as in `concept_subject`."""
    atlas, request = inputs.atlas, inputs.request
    names = list(dict.fromkeys(methods or METHODS))
    require_comparable(names)
    subject = concept_subject(atlas, request, *inputs.placement)
    reference, report = inputs.reference(subject), inputs.report("methods", "methods")
    comparison = ComparisonSettings(subject.score, subject.best, request, request.count, request.seed)
    results = {}
    for done, name in enumerate(names):
        report(done, len(names))
        results[name] = compare_method(name, subject.models, comparison)
    report(len(names), len(names))
    table = pd.DataFrame([_method_row(name, found, subject.best, reference) for name, found in results.items()])
    blocks = [Block([atlas.image(real.image) for real in subject.references], f"score {subject.best:.3g}")]
    for found in results.values():
        caption = f"score {found.score:.3g}" + ("" if found.matched else "\nnot matched")
        blocks.append(image_block(found.images if len(found.images) else None, caption))
    grid = image_grid(f"{inputs.name} at equal activation", ["best real images", *names], [Row("", blocks)])
    subtitle = (
        f"{request.steps} steps, n = {request.count} images a method, {inputs.prior_samples} samples of the prior"
    )
    figure = method_bars(table, concept=inputs.name, subtitle=subtitle)
    unit = str(request.concept)
    drawn = [DrawnUnit(unit, "concept", "real", [atlas.image(real.image) for real in subject.references])]
    drawn += [
        DrawnUnit(unit, "concept", name, to_pil(found.images[: SIDE * SIDE]))
        for name, found in results.items()
        if len(found.images)
    ]
    return Study("methods", atlas, inputs.settings(subject, methods=names), {"table": table}, figure, grid, drawn)


def _method_row(name: str, found: MethodResult, target: float, reference: PriorReference) -> dict:
    """A method's figures; NaN where nothing could be drawn."""
    quality = reference.measure(found.images) if len(found.images) > 1 else Quality(*[math.nan] * 4)
    facts = {key: value for key, value in found._asdict().items() if key not in ("images", "gigabytes")}
    return {"method": name, "target": target, "of_target": found.score / target, **facts, **quality._asdict()}
