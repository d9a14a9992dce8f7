import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.errors import BlindspotError
from engine.klsc.law import expectation, kl, log_probabilities, total_variation, weighted_scores
from tests.engine.klsc.pools import weights

PAIRS = st.integers(1, 30).flatmap(lambda n: st.tuples(weights(n), weights(n)))


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_distances_are_distances_and_pinsker_binds_them(pair):
    q, p = (log_probabilities(len(w), w) for w in pair)
    distance, divergence = total_variation(q, p), kl(q, p)
    assert 0 <= distance <= 1 and divergence >= 0
    assert distance <= math.sqrt(divergence / 2) + 1e-7
    assert distance == pytest.approx(total_variation(p, q))


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_kl_agrees_with_scipy(pair):
    q, p = (log_probabilities(len(w), w) for w in pair)
    assert kl(q, p) == pytest.approx(stats.entropy(np.exp(q), np.exp(p)), abs=1e-9)


def test_distances_by_hand():
    q, p = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    assert total_variation(q, p) == pytest.approx(0.25)
    assert kl(q, p) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl(p, p) == 0 and total_variation(p, p) == 0


def test_an_atom_that_only_q_has_makes_kl_infinite_and_one_that_only_p_has_does_not():
    whole, half = np.log([0.5, 0.5]), np.array([0.0, -np.inf])
    assert kl(whole, half) == math.inf
    assert kl(half, whole) == pytest.approx(math.log(2))
    assert total_variation(half, whole) == 0.5


def test_weights_may_be_as_small_as_logarithms_go():
    log_q = log_probabilities(3, np.array([-5000.0, -5000.0 + math.log(3), -np.inf]))
    assert np.exp(log_q) == pytest.approx([0.25, 0.75, 0])
    assert expectation(np.array([4.0, 8.0, 100.0]), log_q) == pytest.approx(7)


@pytest.mark.parametrize(
    ("scores", "log_weights", "words"),
    [
        ([], None, "no scores"),
        ([1.0, math.nan], None, "finite numbers"),
        ([[1.0, 2.0]], None, r"shape \(1, 2\)"),
        ([1.0, 2.0], [0.0], r"shape \(1,\)"),
        ([1.0, 2.0], [0.0, math.nan], "-inf for no weight"),
        ([1.0, 2.0], [-math.inf, -math.inf], "not all of them"),
        ([1.0, 2.0], [0.0, math.inf], "finite"),
    ],
)
def test_what_is_no_law_is_refused_in_one_sentence(scores, log_weights, words):
    with pytest.raises(BlindspotError, match=words):
        weighted_scores(np.array(scores), None if log_weights is None else np.array(log_weights))
