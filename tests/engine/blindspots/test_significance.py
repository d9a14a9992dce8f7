import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from engine.blindspots.moments import Moments
from engine.blindspots.significance import (
    benjamini_hochberg,
    hoeffding_interval,
    hoeffding_probability,
    mean_covariance,
    measure_gap,
    normal_p,
    normal_quantile,
)

NONE = np.zeros(0, int)


def correlated(seed: int, images: int, concepts: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Energies of real images and of the images a model drew for the same captions."""
    rng = np.random.default_rng(seed)
    shared = rng.exponential(2, (images, concepts))
    real, model = shared + rng.exponential(1, shared.shape), shared + rng.exponential(1.2, shared.shape)
    return np.float32(real), np.float32(model)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_fully_paired_is_the_standard_error_of_the_differences(seed, images):
    real, model = correlated(seed, images)
    order = np.random.default_rng(seed).permutation(images)
    shuffled = np.empty_like(model)
    shuffled[order] = model
    found = measure_gap(sparse.csr_matrix(real), sparse.csr_matrix(shuffled), np.arange(images), order)
    differences = model.astype(np.float64) - real
    np.testing.assert_allclose(found.gap, differences.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.se, differences.std(0, ddof=1) / math.sqrt(images), rtol=1e-6, atol=1e-9)


def test_unpaired_is_welchs_standard_error():
    real, model = correlated(1, 50)[0], correlated(2, 20)[1]
    found = measure_gap(sparse.csr_matrix(real), sparse.csr_matrix(model), NONE, NONE)
    welch = np.sqrt(real.var(0, ddof=1) / 50 + model.var(0, ddof=1) / 20)
    np.testing.assert_allclose(found.se, welch, rtol=1e-5)
    assert found.pairs == 0


def test_pairing_makes_the_interval_narrower_where_pairs_resemble_each_other():
    real, model = (sparse.csr_matrix(side) for side in correlated(3, 200))
    rows = np.arange(200)
    assert (measure_gap(real, model, rows, rows).se < 0.8 * measure_gap(real, model, NONE, NONE).se).all()


def test_half_paired_sources_have_the_standard_error_seen_over_many_repetitions():
    gaps, errors = [], []
    rows = np.arange(30)
    for seed in range(400):
        real, model = correlated(seed, 60, 1)
        fresh = correlated(seed + 1_000_000, 60, 1)[1]
        model = np.concatenate([model[:30], fresh[30:]])
        found = measure_gap(sparse.csr_matrix(real), sparse.csr_matrix(model), rows, rows)
        gaps.append(found.gap[0])
        errors.append(found.se[0])
    assert np.mean(errors) == pytest.approx(np.std(gaps), rel=0.1)


def test_the_covariance_of_the_means_follows_from_the_standard_error():
    real, model = correlated(5, 80)
    rows = np.arange(80)
    found = measure_gap(sparse.csr_matrix(real), sparse.csr_matrix(model), rows, rows)
    moments = Moments.of(sparse.csr_matrix(real)), Moments.of(sparse.csr_matrix(model))
    exact = [np.cov(real[:, k].astype(float), model[:, k].astype(float))[0, 1] / 80 for k in range(4)]
    np.testing.assert_allclose(mean_covariance(*moments, found.se), exact, rtol=1e-6)


def test_the_normal_interval_covers_the_true_gap_as_often_as_it_says():
    inside = 0
    z = normal_quantile(0.9)
    rows = np.arange(100)
    for seed in range(60):
        real, model = correlated(seed, 100, 10)
        found = measure_gap(sparse.csr_matrix(real), sparse.csr_matrix(model), rows, rows)
        inside += np.count_nonzero(np.abs(found.gap - 0.2) <= z * found.se)
    assert inside / 600 == pytest.approx(0.9, abs=0.04)


def test_one_image_gives_no_confidence():
    one = sparse.csr_matrix(np.array([[2.0]]))
    found = measure_gap(one, one * 3, np.array([0]), np.array([0]))
    assert found.gap[0] == 4
    assert np.isinf(found.se[0])
    assert normal_p(found.gap, found.se)[0] == 1


def test_p_is_two_sided_normal_and_defined_without_spread():
    p = normal_p(np.array([1.96, -1.96, 0.0, 0.0, 2.0]), np.array([1.0, 1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(p[:2], 2 * stats.norm.sf(1.96))
    assert p[2:].tolist() == [1, 1, 0]


def test_benjamini_hochberg_by_hand():
    q = benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.5]))
    np.testing.assert_allclose(q, [0.04, 0.16 / 3, 0.16 / 3, 0.5])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_agrees_with_scipy(p):
    np.testing.assert_allclose(benjamini_hochberg(np.array(p)), stats.false_discovery_control(p), rtol=1e-9)


def test_dead_concepts_are_not_tested_and_do_not_dilute_the_others():
    q = benjamini_hochberg(np.array([0.01, 1.0, 1.0, 0.02]), np.array([True, False, False, True]))
    np.testing.assert_allclose(q, [0.02, 1, 1, 0.02])


def test_hoeffding_is_the_corrected_theorem_4():
    n, span, temperature, error = 10_000, 12.0, 0.8, 0.05
    reach = span / (4 * temperature)
    assert hoeffding_probability(error, n, span, temperature) == pytest.approx(2 * math.exp(-n * error**2 / reach**2))
    interval = hoeffding_interval(np.array([1.0]), n, span)
    radius = (interval.high - interval.low)[0] / 2
    assert hoeffding_probability(radius / 4, n, span) == pytest.approx(0.05)


def test_hoeffding_holds_for_coins_and_the_papers_exponent_does_not():
    """With one fair coin a side the gap is -1 or 1 half of the time, and then delta is off by sigmoid(1) - 1/2."""
    error, chance = 0.23, 0.5
    assert 1 / (1 + math.exp(-1)) - 0.5 > error
    assert hoeffding_probability(error, 1, 1.0) >= chance
    assert 2 * math.exp(-2 * error**2 / 0.25**2) < chance


def test_pairs_that_depend_on_each_other_need_a_wider_hoeffding_interval():
    free, paired = (hoeffding_interval(np.zeros(1), 50, 1.0, paired=paired).high for paired in (False, True))
    np.testing.assert_allclose(paired, math.sqrt(2) * free)
