import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from engine.blindspots.correlation import correlate_models
from engine.errors import BlindspotError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60))
def test_both_correlations_agree_with_scipy_one_pair_at_a_time(seed, concepts):
    values = np.random.default_rng(seed).integers(0, 6, (3, concepts)) + np.eye(3, concepts)
    for method, oracle in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        found = correlate_models(values, method=method)
        for one in range(3):
            for other in range(3):
                expected = oracle(values[one], values[other]).statistic
                assert found.matrix[one, other] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    low, high = stats.pearsonr(values[0], values[1]).confidence_interval(0.95)
    found = correlate_models(values)
    np.testing.assert_allclose([found.low[0, 1], found.high[0, 1]], [low, high], atol=1e-6)


def test_spearman_does_not_see_the_sigmoid_and_pearson_does():
    effect = np.random.default_rng(0).normal(0, 4, (2, 500)) + np.random.default_rng(1).normal(0, 4, 500)
    squashed = special.expit(effect)
    ranks = [correlate_models(values, method="spearman").matrix[0, 1] for values in (effect, squashed)]
    lines = [correlate_models(values).matrix[0, 1] for values in (effect, squashed)]
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-9) and abs(lines[0] - lines[1]) > 1e-3


def test_dead_concepts_are_left_out_and_a_flat_model_has_no_correlation():
    values = np.array([[0.1, 0.2, 0.3, 9.0], [0.2, 0.4, 0.6, -9.0], [0.5, 0.5, 0.5, 0.0]])
    found = correlate_models(values, np.array([True, True, True, False]))
    assert found.concepts == 3 and found.matrix[0, 1] == pytest.approx(1)
    assert np.isnan(found.matrix[2]).all()


def test_an_unknown_correlation_is_refused():
    with pytest.raises(BlindspotError, match="no correlation 'kendall': choose one of pearson, spearman"):
        correlate_models(np.zeros((2, 3)), method="kendall")
