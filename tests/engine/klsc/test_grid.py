import math

import numpy as np
import pytest
from scipy.stats import norm

from engine.errors import BlindspotError
from engine.klsc.mixture import AngularConcept, Grid, Mixture


def test_cell_masses_of_the_mixture_are_products_of_normal_integrals():
    edges = np.linspace(-6, 6, 31)
    axis = [np.diff(norm.cdf(edges, centre, 0.8)) for centre in (-2, 2)]
    exact = sum(np.outer(a, b) for a in axis for b in axis) / 4
    found = np.exp(Grid().log_masses(Mixture().log_density)).reshape(30, 30)
    np.testing.assert_allclose(found, exact / exact.sum(), atol=1e-10)


def test_cells_are_laid_out_as_samples_are_counted():
    grid, lump = Grid(side=6), Mixture(means=((3.0, -5.0),), spread=0.5)
    counts = grid.counts(lump.sample(1000, np.random.default_rng(0)))
    assert counts.argmax() == grid.log_masses(lump.log_density).argmax() == 4 * 6
    assert grid.counts(np.array([[100.0, 0.0]])).sum() == 0


def test_exact_samples_of_a_tilt_have_no_divergence_left_and_others_have_theirs():
    concept, mixture, rng, beta = AngularConcept(), Mixture(), np.random.default_rng(1), 0.5259
    pool = mixture.sample(400_000, rng)
    chances = np.exp(beta * (concept(pool) - 8))
    exact = pool[rng.random(len(pool)) < chances]
    grid = Grid()
    tilted = grid.log_masses(lambda x: mixture.log_density(x) + beta * concept(x))
    prior = grid.log_masses(mixture.log_density)
    deviation = math.sqrt(2 * 500) / (2 * len(exact))
    assert abs(grid.kl(exact, tilted)) < 5 * deviation
    between = float(np.exp(tilted) @ (tilted - prior))
    assert grid.kl(exact, prior) == pytest.approx(between, abs=0.01) and between == pytest.approx(0.654, abs=0.01)


def test_samples_off_the_grid_have_no_divergence():
    grid = Grid(reach=1.0, side=2)
    with pytest.raises(BlindspotError, match="None of 3 samples lies within 1"):
        grid.kl(np.full((3, 2), 9.0), np.log(np.full(4, 0.25)))
