import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.blindspots.divergence import compare_divergence
from engine.errors import BlindspotError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 60))
def test_tests_and_intervals_agree_with_scipy(seed, pairs):
    rng = np.random.default_rng(seed)
    before = rng.gamma(3, 10, pairs)
    after = before * rng.uniform(0.6, 1.2, pairs)
    found = compare_divergence(before, after)
    expected = stats.ttest_rel(after, before)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    np.testing.assert_allclose([found.low, found.high], expected.confidence_interval(0.95), rtol=1e-9)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(after, before).pvalue)
    assert found.effect == pytest.approx(expected.statistic / np.sqrt(pairs))
    assert found.closer == pytest.approx(np.mean(after < before))
    assert found.counts.sum(axis=1).tolist() == [pairs, pairs]
    assert found.medians == (np.median(before), np.median(after))
    assert found.spreads[0] == pytest.approx(stats.iqr(before))


def test_a_small_common_gain_is_seen_through_a_large_spread_of_captions():
    rng = np.random.default_rng(0)
    before = rng.gamma(3, 30, 300)
    after = before - 2 + rng.normal(0, 3, 300)
    found = compare_divergence(before, after)
    assert found.p < 1e-10 < 0.05 < stats.ttest_ind(before, after).pvalue
    assert found.effect < -0.4 and found.closer > 0.6


def test_swapping_the_models_turns_the_sign_and_keeps_p():
    rng = np.random.default_rng(1)
    a, b = rng.gamma(3, 1, (2, 50))
    one, other = compare_divergence(a, b), compare_divergence(b, a)
    assert (one.p, one.change, one.effect) == pytest.approx((other.p, -other.change, -other.effect))
    assert one.closer + other.closer == pytest.approx(1)


def test_equal_models_do_not_differ_and_a_constant_shift_is_certain():
    same = compare_divergence(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert (same.change, same.p, same.p_wilcoxon, same.effect, same.closer) == (0, 1, 1, 0, 0.5)
    shifted = compare_divergence(np.array([1.0, 2, 3]), np.array([2.0, 3, 4]))
    assert (shifted.p, shifted.effect, shifted.closer) == (0, np.inf, 0)


def test_unequal_captions_are_refused():
    with pytest.raises(BlindspotError, match="same two or more captions"):
        compare_divergence(np.ones(3), np.ones(4))
