"""Intervals of crossed ratings: simulated panels of biased raters, whose truth is known."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import norm

from engine.ratings.statistics import (
    crossed_spread,
    difference_interval,
    mean_interval,
    proportion_interval,
    success_interval,
)

STEPS = np.array([1.5, 2.5, 3.5])
PANELS = 150


def panel(rng, mean, concepts=60, raters=6, sa=0.6, sb=0.3, se=0.6):
    """Scores 1 to 4 of a panel: concepts differ by `sa`, raters are biased by `sb`, and `se` is left."""
    a, b = sa * rng.standard_normal((concepts, 1)), sb * rng.standard_normal((1, raters))
    return np.clip(np.rint(mean + a + b + se * rng.standard_normal((concepts, raters))), 1, 4)


def true_mean(mean, deviation):
    return 1 + float((1 - norm.cdf((STEPS - mean) / deviation)).sum())


def inside(found, truth):
    return found.low <= truth <= found.high


@pytest.mark.parametrize(("raters", "bias", "missing"), [(6, 0.3, 0.0), (4, 0.5, 0.3), (1, 0.0, 0.0)])
def test_intervals_of_a_biased_panel_hold_the_methods_mean_at_the_nominal_rate(raters, bias, missing):
    rng, hits = np.random.default_rng(1), 0
    truth = true_mean(2.6, math.sqrt(0.36 + bias**2 + 0.36))
    for _ in range(PANELS):
        scores = panel(rng, 2.6, raters=raters, sb=bias)
        scores[rng.random(scores.shape) < missing] = np.nan
        hits += inside(mean_interval(scores, (1, 4)), truth)
    assert 0.90 <= hits / PANELS <= 0.99


def test_biases_cancel_in_differences_and_these_hold_the_truth_too():
    rng, paired, apart, widths = np.random.default_rng(2), 0, 0, []
    deviation = math.sqrt(0.36 + 0.36 + 0.36)
    truth = true_mean(2.9, deviation) - true_mean(2.2, deviation)
    for _ in range(PANELS):
        b = 0.6 * rng.standard_normal((1, 5))
        first, second = (panel(rng, mean + b, raters=5, sb=0) for mean in (2.9, 2.2))
        found = difference_interval(first, second)
        apart += inside(found, truth)
        paired += inside(mean_interval(first - second), truth)
        widths.append((found.high - found.low) / (mean_interval(first).high - mean_interval(first).low))
    assert 0.90 <= apart / PANELS <= 1 and 0.90 <= paired / PANELS <= 1
    assert np.mean(widths) < 0.6  # each mean alone carries the raters' biases


def test_success_rates_hold_the_truth():
    rng, hits, truths = np.random.default_rng(3), 0, []
    truths = [(panel(rng, 2.5).mean(axis=1) >= 2.5).mean() for _ in range(400)]
    for _ in range(PANELS):
        hits += inside(success_interval(panel(rng, 2.5), 2.5), np.mean(truths))
    assert 0.90 <= hits / PANELS <= 0.995


def test_the_standard_error_is_that_of_the_analysis_of_variance():
    scores = panel(np.random.default_rng(0), 2.5, concepts=12, raters=5)
    c, r = scores.shape
    rows, columns, mean = scores.mean(1), scores.mean(0), scores.mean()
    residual = scores - rows[:, None] - columns + mean
    squares = r * rows.var(ddof=1), c * columns.var(ddof=1), (residual**2).sum() / ((c - 1) * (r - 1))
    expected = math.sqrt((squares[0] + squares[1] - squares[2]) / (c * r))
    assert mean_interval(scores).error == pytest.approx(expected)
    assert crossed_spread([(scores - mean) / scores.size]).freedom < c * r - 1


def test_shares_of_none_and_of_all_have_intervals_and_little_data_is_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none, all_of = proportion_interval(np.zeros((20, 3))), proportion_interval(np.ones((20, 3)))
        assert none.value == none.low == 0 < none.high < 0.3 and all_of.high == 1 and 0.7 < all_of.low < 1
        one = mean_interval(np.array([[3.0, 4.0]]), (1, 4))
        assert (one.value, one.low, one.high) == (3.5, 1, 4)  # one concept says nothing of others
        assert math.isnan(mean_interval(np.full((3, 2), np.nan)).value) and math.isnan(
            proportion_interval(np.empty((0, 2))).low
        )
        alone = np.array([[1.0, np.nan], [2.0, np.nan], [4.0, np.nan]])
        assert mean_interval(alone).value == pytest.approx(7 / 3)
