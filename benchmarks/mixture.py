"""How far off is EnergyDPS when nothing else is?

    python -m precompute benchmark mixture --json

On the toy mixture the denoiser is exact and so is the tilt, so a sample's distance to the tilt is the sampler's own
error. For each mean score: EnergyDPS at the tilt's own beta (it overshoots: a denoised guess is not the image that will
come of it, so its score says too much too early), the same inside particle filters (`energydps-smc`), EnergyDPS with
its strength calibrated to the mean, and its rivals calibrated likewise: the best of a pool, and optimisation of
s + weight x_2 from many starts (arXiv:2605.17504, appendix I). KL in nats over a 30 x 30 grid on [-6, 6]^2, corrected
for the number of samples; a filter's is that of the law of its samples, to which all of its weighted particles testify.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from scipy.optimize import brentq

from benchmarks.oracle import BATCH, CONCEPT, MIXTURE, clouds, draw
from engine.klsc.diagnosis import diagnose
from engine.klsc.mixture import Grid, score_law
from engine.klsc.threshold import matching_top_k

TRIAL = 60_000
"""Samples of one trial strength: they know the mean to 0.012, a quarter of a per cent."""
POOL = 20_000
"""Images in the pool of retrieval."""
PARTICLES = (4, 16, 64, 256)
"""Particles of a filter."""
BOX, ASCENTS, RATE = 5.0, 500, 0.05
"""Starts and steps of the optimisation; points stay in the box [-5, 5]^2."""
GRID = Grid()
LAW = score_law(MIXTURE, CONCEPT)


def weighted_kl(points: np.ndarray, weights: np.ndarray, log_masses: np.ndarray) -> float:
    """KL(mean of weighted histograms || law) over the cells, less what its noise adds.

    Filters are independent and their particles are not, so to second order chance adds half the variance over filters
    of each cell's mass, over that mass; for filters of one particle this is `Grid.kl`.

    Parameters
    ----------
    points, weights
        [n, particles, 2] and [n, particles].
    log_masses
        [cells] from `Grid.log_masses`.
    """
    cells = ((points + GRID.reach) * (GRID.side / (2 * GRID.reach))).clip(0, GRID.side - 1).astype(int)
    masses = np.zeros((len(points), len(log_masses)))
    np.add.at(masses, (np.arange(len(points))[:, None], cells[..., 0] * GRID.side + cells[..., 1]), weights)
    mean, noise = masses.mean(axis=0), masses.var(axis=0, ddof=1) / len(points)
    seen = mean > 0
    return float(mean[seen] @ (np.log(mean[seen]) - log_masses[seen]) - (noise[seen] / mean[seen]).sum() / 2)


def calibrated_strength(target: float, beta: float, n: int, seed: int, steps: int) -> float:
    """Strength at which EnergyDPS has the mean score `target`, with the same noise at every trial."""

    def miss(strength: float) -> float:
        return float(CONCEPT(draw(strength, n, seed, steps)).mean()) - target

    return brentq(miss, beta / 4, beta, xtol=2e-3 * beta)


def optimised(weight: float, n: int, seed: int) -> np.ndarray:
    """[n, 2] ends of gradient ascent on s + weight x_2."""
    points = np.random.default_rng(seed).uniform(-BOX, BOX, (n, 2))
    for _ in range(ASCENTS):
        points = np.clip(points + RATE * (CONCEPT.gradient(points) + np.array([0.0, weight])), -BOX, BOX)
    return points


def calibrated_weight(target: float, n: int, seed: int) -> float:
    """Weight at which the optimised points have the mean score `target`, as nearly as its jumps allow."""
    return brentq(lambda weight: CONCEPT(optimised(weight, n, seed)).mean() - target, 0.0, 10.0, xtol=1e-3)


def measure(target: float, samples: int, seed: int, steps: int) -> dict[str, Any]:
    """Every method at one mean score: its knob, its mean, and its KL to the prior and to the tilt."""
    exact = diagnose(LAW.scores, target, LAW.log_weights)
    prior = GRID.log_masses(MIXTURE.log_density)
    tilted = GRID.log_masses(lambda x: MIXTURE.log_density(x) + exact.beta * CONCEPT(x))

    def row(points: np.ndarray, **knob: float) -> dict[str, float]:
        mean = float(CONCEPT(points).mean())
        return {**knob, "mean": mean, "kl_prior": GRID.kl(points, prior), "kl_tilt": GRID.kl(points, tilted)}

    def filtered(particles: int) -> dict[str, float]:
        points, weights = clouds(exact.beta, particles, samples, seed + 3000 + particles, steps)
        means = (weights * CONCEPT(points)).sum(axis=1)
        error = float(means.std(ddof=1) / len(means) ** 0.5)
        kl_prior, kl_tilt = (weighted_kl(points, weights, masses) for masses in (prior, tilted))
        return {
            "strength": exact.beta,
            "filters": len(points),
            "mean": float(means.mean()),
            "mean_error": error,
            "kl_prior": kl_prior,
            "kl_tilt": kl_tilt,
        }

    strength = calibrated_strength(target, exact.beta, min(samples, TRIAL), seed, steps)
    pool = MIXTURE.sample(POOL, np.random.default_rng(seed))
    k = matching_top_k(CONCEPT(pool), target).k
    weight = calibrated_weight(target, BATCH, seed)
    return {
        "target": target,
        "beta": exact.beta,
        "exact tilt": {"mean": target, "kl_prior": exact.tilt.kl_prior, "kl_tilt": 0.0},
        "energydps at beta": row(draw(exact.beta, samples, seed + 1000, steps), strength=exact.beta),
        **{f"energydps-smc, {particles} particles": filtered(particles) for particles in PARTICLES},
        "energydps calibrated": row(draw(strength, samples, seed + 2000, steps), strength=strength),
        "retrieval": row(pool[np.argsort(-CONCEPT(pool))[:k]], k=k, pool=POOL),
        "optimisation": row(optimised(weight, min(samples, POOL), seed + 1), weight=weight),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--targets", type=float, nargs="+", default=[5.0, 6.0, 7.0])
    arguments.add_argument("--samples", type=int, default=120_000)
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    report = [measure(target, options.samples, options.seed, options.steps) for target in options.targets]
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for rows in report:
        print(f"mean score {rows['target']:g}, beta {rows['beta']:.4f}")
        for name, row in rows.items():
            if isinstance(row, dict):
                print(f"  {name:28s}" + "".join(f"  {key} {value:.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
