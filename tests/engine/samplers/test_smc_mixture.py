"""On the toy mixture EnergyDPS overshoots the tilt and particles do not; the full figures are in the benchmark."""

import numpy as np
import pytest
import torch

from benchmarks.mixture import GRID, weighted_kl
from benchmarks.oracle import CONCEPT, MIXTURE, OraclePrior, clouds, concept_score, draw

BETA, MEAN = 0.5259, 7.0
TILT = GRID.log_masses(lambda x: MIXTURE.log_density(x) + BETA * CONCEPT(x))


def test_the_fast_oracle_is_the_mixture_s_own():
    prior, points = OraclePrior(), torch.randn(50, 2, 1, 1, generator=torch.Generator().manual_seed(0)) * 3
    for t in (0, 300, 999):
        exact = MIXTURE.denoise(points.flatten(1).double(), prior.schedule.signal(t))
        torch.testing.assert_close(prior.network(points, t).flatten(1).double(), exact, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(concept_score(points), CONCEPT(points.flatten(1)))


def test_lone_particles_have_the_divergence_of_plain_samples():
    points = MIXTURE.sample(3000, np.random.default_rng(0))
    alone = weighted_kl(points[:, None], np.ones((3000, 1)), TILT)
    assert alone == pytest.approx(GRID.kl(points, TILT), abs=1e-4)


def test_particles_bring_the_mean_and_the_divergence_down():
    plain = draw(BETA, 3000, steps=200)
    points, weights = clouds(BETA, 64, 5000, steps=200)
    means = (weights * CONCEPT(points)).sum(axis=1)
    assert CONCEPT(plain).mean() > MEAN + 0.6
    assert means.mean() == pytest.approx(MEAN, abs=0.15)
    assert weighted_kl(points, weights, TILT) < GRID.kl(plain, TILT) / 5
