import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special

from engine.blindspots.delta import ESTIMATORS, classify, delta_of_gap, estimate_delta, relative_gap
from engine.blindspots.significance import Moments, measure_gap
from engine.errors import BlindspotError


def source(energies) -> Moments:
    return Moments.of(sparse.csr_matrix(np.asarray(energies, np.float32)))


def sampled(seed: int, images: int, concepts: int, factor: float = 1.0) -> tuple[Moments, Moments, np.ndarray]:
    """Paired gamma energies whose means are 3 and 3 * factor, and the standard error of their gap."""
    rng = np.random.default_rng(seed)
    shared = rng.gamma(2, 1, (images, concepts))
    real, model = shared + rng.gamma(1, 1, shared.shape), factor * (shared + rng.gamma(1, 1, shared.shape))
    left, right = sparse.csr_matrix(real), sparse.csr_matrix(model)
    rows = np.arange(images)
    return Moments.of(left), Moments.of(right), measure_gap(left, right, rows, rows).se


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_corpora_have_delta_one_half(estimator):
    real, _, _ = sampled(0, 30, 5)
    found = estimate_delta(real, real, np.zeros(5), estimator=estimator)
    np.testing.assert_array_equal(found.delta, 0.5)
    assert ((found.interval.low <= 0.5) & (found.interval.high >= 0.5)).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.2, 5))
def test_swapping_model_and_real_mirrors_delta_and_its_interval(estimator, seed, factor):
    real, model, se = sampled(seed, 12, 3, factor)
    one = estimate_delta(real, model, se, estimator=estimator)
    other = estimate_delta(model, real, se, estimator=estimator)
    np.testing.assert_allclose(one.delta, 1 - other.delta, atol=1e-9)
    np.testing.assert_allclose(one.interval.low, 1 - other.interval.high, atol=1e-9)
    assert ((one.interval.low <= one.delta) & (one.delta <= one.interval.high)).all()


def test_gap_is_the_papers_delta():
    found = estimate_delta(source([[1], [3]]), source([[4], [6]]), np.array([0.5]))
    assert found.effect[0] == 3
    assert found.delta[0] == pytest.approx(1 / (1 + np.exp(-3 / 0.8)))
    ends = delta_of_gap(3 + 1.959964 * 0.5 * np.array([-1, 1]))
    np.testing.assert_allclose([found.interval.low[0], found.interval.high[0]], ends, rtol=1e-6)


def test_share_is_the_models_part_of_both_energies():
    real, model = source([[1, 0, 4], [3, 0, 0]]), source([[5, 2, 0], [7, 2, 0]])
    found = estimate_delta(real, model, np.zeros(3), estimator="share")
    np.testing.assert_allclose(found.delta, [6 / 8, 1, 0])
    np.testing.assert_allclose(found.delta, (1 + relative_gap(real, model)) / 2)


def test_the_interval_of_relative_is_that_of_share_on_its_own_scale():
    real, model = source([[1, 4, 2, 0], [3, 2, 2, 1]]), source([[5, 1, 2, 0], [7, 0, 3, 0]])
    se = np.array([1.2, 0.8, 0.4, 0.5])
    shared = estimate_delta(real, model, se, estimator="share").interval
    found = estimate_delta(real, model, se, estimator="relative", temperature=1.0).interval
    for end, share in zip(found, shared, strict=True):
        np.testing.assert_allclose(special.logit(end), 2 * share - 1, atol=1e-12)


def test_relative_uses_the_frequency_plots_temperature():
    found = estimate_delta(source([[1], [3]]), source([[5], [7]]), np.zeros(1), estimator="relative")
    assert found.effect[0] == 0.5
    assert found.delta[0] == pytest.approx(1 / (1 + np.exp(-0.5 / 0.4)))


def test_standardised_is_cohens_d():
    found = estimate_delta(source([[1], [3]]), source([[5], [7], [9]]), np.ones(1), estimator="standardised")
    pooled = np.sqrt((1 * 2 + 2 * 4) / 3)
    assert found.effect[0] == pytest.approx(5 / pooled)


@pytest.mark.parametrize("estimator", ["relative", "share", "standardised"])
def test_unit_free_estimators_do_not_change_with_the_scale_of_the_codes(estimator):
    real, model, se = sampled(4, 40, 3, 1.5)
    scaled = [Moments(side.images, 7 * side.sum, 49 * side.sum_sq) for side in (real, model)]
    one = estimate_delta(real, model, se, estimator=estimator)
    other = estimate_delta(*scaled, 7 * se, estimator=estimator)
    np.testing.assert_allclose(one.delta, other.delta)
    np.testing.assert_allclose(one.interval, other.interval)


@pytest.mark.parametrize(("estimator", "truth"), [("gap", 1.5), ("relative", 0.2), ("share", np.log(1.5))])
def test_intervals_cover_the_truth_as_often_as_they_say(estimator, truth):
    """Means 3 and 4.5; the paired covariance is part of every interval, so none may be too wide either."""
    truth = 1 / (1 + np.exp(-truth / ESTIMATORS[estimator].temperature))
    inside = 0
    for seed in range(40):
        real, model, se = sampled(seed, 150, 25, 1.5)
        low, high = estimate_delta(real, model, se, estimator=estimator, level=0.9).interval
        inside += np.count_nonzero((low <= truth) & (truth <= high))
    assert inside / 1000 == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_silent_concept_is_neutral(estimator):
    silent = source([[0], [0]])
    found = estimate_delta(silent, silent, np.zeros(1), estimator=estimator)
    assert [found.delta[0], found.interval.low[0], found.interval.high[0]] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("energies", [(2, 3), (0, 3), (2, 0), (0, 0)])
def test_one_image_gives_the_widest_interval(estimator, energies):
    real, model = (source([[energy]]) for energy in energies)
    found = estimate_delta(real, model, np.array([np.inf]), estimator=estimator)
    temperature, (low, high) = ESTIMATORS[estimator].temperature, ESTIMATORS[estimator].bounds
    np.testing.assert_allclose(found.interval.low, delta_of_gap(low, temperature))
    np.testing.assert_allclose(found.interval.high, delta_of_gap(high, temperature))


def test_a_lower_temperature_moves_delta_away_from_one_half():
    real, model = source([[1], [3]]), source([[2], [3]])
    deltas = [estimate_delta(real, model, np.ones(1), temperature=t).delta[0] for t in (4, 0.8, 0.1)]
    assert 0.5 < deltas[0] < deltas[1] < deltas[2] < 1


def test_unknown_estimators_and_temperatures_are_refused_in_words():
    real = source([[1], [2]])
    with pytest.raises(BlindspotError, match="no delta estimator 'odds': choose one of gap, relative, share, stand"):
        estimate_delta(real, real, np.zeros(1), estimator="odds")
    with pytest.raises(BlindspotError, match="temperature of delta is 0"):
        estimate_delta(real, real, np.zeros(1), temperature=0)


def test_thresholds_are_strict():
    assert classify(np.array([0.05, 0.1, 0.5, 0.9, 0.95])).tolist() == [
        "suppressed",
        "neutral",
        "neutral",
        "neutral",
        "exaggerated",
    ]
