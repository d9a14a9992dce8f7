import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.blindspots.distribution import frequency_bands
from engine.errors import BlindspotError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_bands_are_numpys_percentiles_of_the_concepts_between_two_edges(seed, concepts):
    rng = np.random.default_rng(seed)
    fires, values = rng.integers(0, 5000, concepts) * (rng.random(concepts) < 0.9) + 0, rng.random(concepts)
    fires[0] = 17
    found = frequency_bands(fires, values, bins=7)
    assert found.counts.sum() == np.count_nonzero(fires)
    assert found.edges[0] == pytest.approx(fires[fires > 0].min())
    for number in range(7):
        upper = fires <= found.edges[7] * 1.001 if number == 6 else fires < found.edges[number + 1]
        inside = values[(fires > 0) & (fires >= found.edges[number]) & upper]
        if len(inside):
            np.testing.assert_allclose(found.bands[:, number], np.percentile(inside, (5, 50, 95)))
        else:
            assert np.isnan(found.bands[:, number]).all()


def test_rare_concepts_that_are_off_give_a_negative_rank_correlation():
    fires = np.geomspace(1, 1e6, 200)
    values = 0.5 + 0.4 * np.where(np.arange(200) % 2, 1, -1) / (1 + np.log(fires))
    found = frequency_bands(fires, values)
    assert found.spearman == pytest.approx(-1)
    assert found.bands[2, 0] - found.bands[0, 0] > found.bands[2, -1] - found.bands[0, -1]
    np.testing.assert_allclose(found.centres**2, found.edges[1:] * found.edges[:-1])


def test_a_corpus_without_any_concept_is_refused():
    with pytest.raises(BlindspotError, match="No concept fires"):
        frequency_bands(np.zeros(3), np.zeros(3))
