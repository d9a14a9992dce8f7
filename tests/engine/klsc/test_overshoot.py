"""What the toy shows of EnergyDPS: without guidance it is exact, at the tilt's own beta it goes too far."""

import numpy as np
import pytest

from benchmarks.oracle import draw
from engine.klsc.mixture import AngularConcept, Grid, Mixture

GRID, MIXTURE, CONCEPT = Grid(), Mixture(), AngularConcept()


def divergence(points: np.ndarray, beta: float) -> float:
    return GRID.kl(points, GRID.log_masses(lambda x: MIXTURE.log_density(x) + beta * CONCEPT(x)))


def test_without_guidance_the_samples_are_the_priors():
    points = draw(0.0, 8000, steps=200)
    assert CONCEPT(points).mean() == pytest.approx(4, abs=0.12)
    assert divergence(points, 0.0) < 0.015


def test_at_the_tilts_own_beta_the_mean_overshoots_and_half_of_it_would_do():
    beta = 0.2815
    points, half = draw(beta, 8000, steps=200), draw(beta / 2, 8000, steps=200)
    assert CONCEPT(points).mean() == pytest.approx(7.0, abs=0.12)
    assert 0.08 < divergence(points, beta) < 0.15
    assert CONCEPT(half).mean() == pytest.approx(5.9, abs=0.15)
