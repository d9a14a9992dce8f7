"""Do the error bars hold?

    python -m precompute benchmark coverage --json

Energies are simulated from known laws, so the true gap is known: how often does the 95 % interval hold it, and how many
of the concepts called significant are not? Like those of the demo's encoder, energies are zero in most images and
gamma(1.2) where the concept fires (coefficient of variation 0.91; the demo's median is 0.92); up to half of a model's
images that show a concept do so because the real image of their pair does.

The intervals are those of an atlas: Student's with no more degrees of freedom than images show the concept
(`significance.interval_degrees`); `normal` is what that of `gap` would be if the spread were known. Of the tests,
`stored` divides by the stored standard error and `null error` by `significance.null_error`. Rows below 1 % of images
are the stated limits.
"""

from __future__ import annotations

import argparse
import json
from typing import NamedTuple

import numpy as np
from scipy import sparse

from engine.blindspots.delta import ESTIMATORS, delta_of_gap, estimate_delta
from engine.blindspots.significance import (
    Moments,
    benjamini_hochberg,
    interval_degrees,
    measure_gap,
    normal_p,
    null_error,
)

SHAPE = 1.2
NONE = np.zeros(0, int)
_CELLS = 5_000_000
"""Images x concepts that are drawn at once."""


class Change(NamedTuple):
    """What a model does with a concept."""

    frequency: float
    """Times as many images show it."""
    strength: float
    """Times the energy where it shows."""


CHANGES = {
    "equal": Change(1, 1),
    "half as often": Change(0.5, 1),
    "never": Change(0, 1),
    "twice as often": Change(2, 1),
    "half as often, twice as strong": Change(0.5, 2),
}


def draw_pairs(
    rng: np.random.Generator, images: int, frequency: np.ndarray, change: Change
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Energies `[images, concepts]` of the real images and of a model's, row i of both from one caption."""
    sides: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for often in frequency:
        wanted = min(often * change.frequency, 1.0)
        shared = min(0.5, 0.5 * change.frequency)
        shown = bernoulli(rng, images, often)
        by_chance = bernoulli(rng, images, (wanted - often * shared) / (1 - often))
        copied = shown[rng.random(len(shown)) < shared]
        sides[0].append(shown)
        sides[1].append(np.union1d(copied, np.setdiff1d(by_chance, shown, assume_unique=True)))
    return _energies(rng, images, sides[0], 1.0), _energies(rng, images, sides[1], change.strength)


def bernoulli(rng: np.random.Generator, trials: int, chance: float) -> np.ndarray:
    """The successes of independent trials, in order; by their geometric gaps, so that rare ones cost little."""
    if chance <= 0:
        return NONE
    expected = trials * chance
    places = np.cumsum(rng.geometric(chance, int(expected + 8 * np.sqrt(expected) + 20))) - 1
    return places[places < trials]


def _energies(rng: np.random.Generator, images: int, shown: list[np.ndarray], strength: float) -> sparse.csr_matrix:
    indptr = np.cumsum([0, *(len(rows) for rows in shown)])
    values = strength * rng.gamma(SHAPE, 1 / SHAPE, indptr[-1])
    return sparse.csc_matrix((values, np.concatenate(shown), indptr), (images, len(shown))).tocsr()


def interval_coverage(
    seed: int, images: int, frequency: float, change: Change, concepts: int, *, paired: bool = True
) -> dict[str, float]:
    """Share of intervals of delta that hold the true one: of `gap` (and the normal one), `relative` and `share`."""
    rng = np.random.default_rng(seed)
    mean, factor = frequency, change.frequency * change.strength
    effects = {"gap": mean * (factor - 1), "relative": (factor - 1) / (factor + 1)}
    effects["share"] = np.log(factor) if factor else -np.inf
    inside = dict.fromkeys(("gap, normal", "gap", "relative", "share"), 0)
    rows = np.arange(images) if paired else NONE
    step = max(1, _CELLS // images)
    for start in range(0, concepts, step):
        real, model = draw_pairs(rng, images, np.full(min(step, concepts - start), frequency), change)
        if not paired:
            real, _ = draw_pairs(rng, images, np.full(real.shape[1], frequency), change)
        gap = measure_gap(real, model, rows, rows)
        sides = Moments.of(real), Moments.of(model)
        degrees = interval_degrees(*sides, paired, real.getnnz(axis=0), model.getnnz(axis=0))
        for name in inside:
            estimator, _, method = name.partition(", ")
            known = {"degrees": np.inf if method == "normal" else degrees}
            interval = estimate_delta(*sides, gap.se, estimator=estimator, **known).interval
            delta = delta_of_gap(effects[estimator], ESTIMATORS[estimator].temperature)
            inside[name] += np.count_nonzero((interval.low <= delta + 1e-12) & (delta - 1e-12 <= interval.high))
    return {name: round(count / concepts, 4) for name, count in inside.items()}


def false_discoveries(
    seed: int,
    repetitions: int,
    concepts: int,
    *,
    real_images: int = 10_000,
    model_images: int = 10_000,
    paired: bool = True,
    changed: float = 0.0,
) -> dict[str, float]:
    """False discovery rate at q < 0.05 for concepts that fire in 0.01 % to 30 % of images.

    A share `changed` of them is drawn half as often. The others are drawn alike by model and reality, so every one of
    them that is called significant is false; the rate is the mean over repetitions of false over all discoveries.
    """
    rng = np.random.default_rng(seed)
    rates: dict[str, list[float]] = {"stored": [], "null error": []}
    planted = np.arange(concepts) < changed * concepts
    found = 0
    for _ in range(repetitions):
        frequency = np.exp(rng.uniform(np.log(1e-4), np.log(0.3), concepts))
        images = max(real_images, model_images)
        real, model = draw_pairs(rng, images, frequency, CHANGES["equal"])
        if planted.any():
            halved = draw_pairs(rng, images, frequency[planted], CHANGES["half as often"])
            real, model = (
                sparse.hstack([new, old[:, ~planted]], format="csr")
                for new, old in zip(halved, (real, model), strict=True)
            )
        if not paired:
            real = draw_pairs(rng, images, frequency, CHANGES["equal"])[0]
        real, model = real[:real_images], model[:model_images]
        rows = np.arange(images) if paired else NONE
        gap = measure_gap(real, model, rows, rows)
        live = real.getnnz(axis=0) + model.getnnz(axis=0) > 0
        error = null_error(Moments.of(real), Moments.of(model), gap.se)
        p = {"stored": normal_p(gap.gap, gap.se), "null error": normal_p(gap.gap, error)}
        for name, values in p.items():
            called = benjamini_hochberg(values, live) < 0.05
            rates[name].append(np.count_nonzero(called & ~planted) / max(np.count_nonzero(called), 1))
            found += np.count_nonzero(called & planted) if name == "null error" else 0
    report = {name: round(float(np.mean(values)), 4) for name, values in rates.items()}
    if changed:
        report["planted found"] = round(found / (repetitions * np.count_nonzero(planted)), 3)
    return report


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--concepts", type=int, default=10_000, help="simulated concepts per row")
    arguments.add_argument("--repetitions", type=int, default=100, help="of the false discovery rate")
    arguments.add_argument("--frequencies", type=float, nargs="*", default=[0.001, 0.003, 0.01, 0.03, 0.1])
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    report = {"images": options.images, "simulated concepts": options.concepts, "coverage": {}, "false discoveries": {}}
    for frequency in options.frequencies:
        for name, change in CHANGES.items():
            key = f"{frequency:.2%} of images, {name}"
            report["coverage"][key] = interval_coverage(0, options.images, frequency, change, options.concepts)
        key = f"{frequency:.2%} of images, half as often, unpaired"
        report["coverage"][key] = interval_coverage(
            1, options.images, frequency, CHANGES["half as often"], options.concepts, paired=False
        )
    settings = {
        "null, paired": {},
        "null, unpaired": {"paired": False},
        "null, unpaired, 2,000 images against 10,000": {"paired": False, "model_images": 2000},
        "one in ten halved, paired": {"changed": 0.1},
    }
    for name, setting in settings.items():
        report["false discoveries"][name] = false_discoveries(2, options.repetitions, 500, **setting)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for part in ("coverage", "false discoveries"):
        for name, row in report[part].items():
            print(f"{part:18s} {name:60s} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
