import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.blindspots.delta import delta_of_gap
from engine.blindspots.distribution import delta_distribution, rank_concepts, skewness
from engine.errors import BlindspotError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 200))
def test_every_number_agrees_with_scipy_and_a_count_by_hand(seed, concepts):
    delta = np.random.default_rng(seed).beta(0.5, 0.7, concepts)
    found = delta_distribution(delta)
    assert found.counts.sum() == found.concepts == concepts
    for number, count in enumerate(found.counts):
        top = delta <= found.edges[-1] if number == 99 else delta < found.edges[number + 1]
        assert count == np.count_nonzero((delta >= found.edges[number]) & top)
    assert found.density.sum() / 100 == pytest.approx(1)
    np.testing.assert_allclose(10 ** found.log_density[found.counts > 0], found.density[found.counts > 0])
    assert found.skewness == pytest.approx(stats.skew(delta), abs=1e-9)
    assert found.median == np.median(delta)
    assert found.suppressed == np.mean(delta < 0.1) and found.exaggerated == np.mean(delta > 0.9)


@given(st.lists(st.floats(-20, 20).map(lambda gap: round(gap, 4)), min_size=1, max_size=40))
def test_mirrored_corpora_have_no_skewness_and_median_one_half(gaps):
    """For every gap its opposite: what one model exaggerates, its mirror image suppresses."""
    found = delta_distribution(delta_of_gap(np.array([*gaps, *(-gap for gap in gaps)])))
    assert found.skewness == pytest.approx(0, abs=1e-7)
    assert found.median == pytest.approx(0.5)


def test_equal_corpora_sit_in_one_bin_at_one_half():
    found = delta_distribution(delta_of_gap(np.zeros(7)))
    assert (found.median, found.skewness, found.suppressed, found.exaggerated) == (0.5, 0, 0, 0)
    assert found.counts[50] == 7


def test_a_longer_suppressed_tail_is_negative_skewness_as_in_the_paper():
    assert skewness(np.array([0.0, 0.4, 0.5, 0.5, 0.6])) < -0.5


def test_dead_concepts_do_not_count():
    found = delta_distribution(np.array([0.5, np.nan, 1.0]), np.array([True, False, True]))
    assert found.concepts == 2 and found.exaggerated == 0.5


def test_effects_in_place_of_deltas_are_refused():
    with pytest.raises(BlindspotError, match=r"must lie in \[0, 1\]"):
        delta_distribution(np.array([0.3, -2.0]))


def test_the_ranking_goes_on_where_delta_saturates():
    gap = np.array([40.0, -60.0, 0.0, -50.0, 0.0, 50.0])
    live = np.array([True, True, True, True, True, False])
    assert rank_concepts(delta_of_gap(gap), gap, live).tolist() == [1, 3, 2, 4, 0]
