import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from engine.blindspots.significance import (
    Moments,
    active_degrees,
    benjamini_hochberg,
    degrees_of_freedom,
    mean_covariance,
    measure_gap,
    normal_p,
    normal_quantile,
    null_error,
    student_p,
    student_quantile,
)

NONE = np.zeros(0, int)


def student_interval(gap, se, degrees):
    reach = student_quantile(degrees, 0.95) * se
    return gap - reach, gap + reach


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


@pytest.mark.parametrize(("left", "right"), [(12, 7), (40, 5), (3, 3)])
def test_unpaired_p_and_interval_are_welchs(left, right):
    real, model = correlated(8, left)[0].astype(float), correlated(9, right)[1].astype(float)
    sides = sparse.csr_matrix(real), sparse.csr_matrix(model)
    found = measure_gap(*sides, NONE, NONE)
    degrees = degrees_of_freedom(Moments.of(sides[0]), Moments.of(sides[1]), found.pairs)
    expected = stats.ttest_ind(model, real, equal_var=False)
    np.testing.assert_allclose(degrees, expected.df, rtol=1e-9)
    np.testing.assert_allclose(student_p(found.gap, found.se, degrees), expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(
        student_interval(found.gap, found.se, degrees), expected.confidence_interval(), rtol=1e-8
    )


def test_paired_p_and_interval_are_the_paired_t_tests():
    real, model = (side.astype(float) for side in correlated(10, 9))
    sides, rows = (sparse.csr_matrix(real), sparse.csr_matrix(model)), np.arange(9)
    found = measure_gap(*sides, rows, rows)
    degrees = degrees_of_freedom(Moments.of(sides[0]), Moments.of(sides[1]), found.pairs)
    expected = stats.ttest_rel(model, real)
    np.testing.assert_allclose(student_p(found.gap, found.se, degrees), expected.pvalue, rtol=1e-6)
    low, high = student_interval(found.gap, found.se, degrees)
    np.testing.assert_allclose([low, high], expected.confidence_interval(), rtol=1e-6)


def test_degrees_of_freedom_are_defined_for_silent_concepts_and_single_images():
    silent = Moments.of(sparse.csr_matrix((5, 1)))
    assert degrees_of_freedom(silent, silent, 0).tolist() == [4]
    one = Moments.of(sparse.csr_matrix(np.ones((1, 1))))
    assert degrees_of_freedom(one, one, 0).tolist() == [1]
    assert student_p(np.array([0.0, 2.0]), np.array([0.0, np.inf]), np.array([1.0, 1.0])).tolist() == [1, 1]


def test_a_rare_concept_that_the_smaller_source_misses_by_chance_is_not_significant():
    """30 of 10,000 real images show it and none of 2,000 drawn ones, where 6 are expected: a chance of 1 in 240."""
    real = Moments.of(sparse.csr_matrix(np.r_[np.ones(30), np.zeros(9970)][:, None]))
    model = Moments.of(sparse.csr_matrix((2000, 1)))
    welch = np.sqrt(real.variance / 10_000)
    assert normal_p(-real.mean, welch)[0] < 1e-7
    assert 0.005 < normal_p(-real.mean, null_error(real, model, welch))[0] < 0.05


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_for_sources_of_one_size_nothing_changes(seed):
    real, model = (sparse.csr_matrix(side) for side in correlated(seed, 30))
    rows = np.arange(30)
    for chosen in (rows, NONE):
        se = measure_gap(real, model, chosen, chosen).se
        np.testing.assert_allclose(null_error(Moments.of(real), Moments.of(model), se), se, rtol=1e-9)


def test_a_frequent_concept_has_a_normal_interval_and_a_rare_one_a_wider():
    gap, se = np.zeros(2), np.ones(2)
    wide = student_interval(gap, se, active_degrees(np.array([5, 4000]), np.array([0, 4000])))[1]
    assert wide[0] == pytest.approx(stats.t.ppf(0.975, 4)) and wide[1] == pytest.approx(normal_quantile(0.95), abs=1e-3)
