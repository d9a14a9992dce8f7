import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.blindspots.distribution import shared_blindspots
from engine.errors import BlindspotError


def test_the_words_mean_what_the_design_says():
    deltas = np.array([
        [0.05, 0.05, 0.05, 0.95, 0.95, 0.50, 0.05],
        [0.09, 0.30, 0.24, 0.91, 0.75, 0.50, 0.05],
    ])  # fmt: skip
    live = np.array([True] * 6 + [False])
    found = shared_blindspots(deltas, live)
    assert found.universal.tolist() == [-1, 0, 0, 1, 0, 0, 0]
    assert found.specific.tolist() == [[0, -1, 0, 0, 1, 0, 0], [0] * 7]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_the_masks_agree_with_a_loop_over_concepts(seed, models):
    deltas = np.random.default_rng(seed).choice([0.02, 0.09, 0.2, 0.3, 0.5, 0.7, 0.8, 0.92, 0.99], (models, 40))
    found = shared_blindspots(deltas)
    for concept, column in enumerate(deltas.T):
        expected = -1 if max(column) < 0.1 else 1 if min(column) > 0.9 else 0
        assert found.universal[concept] == expected
        for model, delta in enumerate(column):
            rest = [other for number, other in enumerate(column) if number != model]
            low = delta < 0.1 and all(other >= 0.25 for other in rest)
            high = delta > 0.9 and all(other <= 0.75 for other in rest)
            assert found.specific[model, concept] == int(high) - int(low)


def test_one_model_has_neither():
    with pytest.raises(BlindspotError, match="at least two models"):
        shared_blindspots(np.zeros((1, 4)))
