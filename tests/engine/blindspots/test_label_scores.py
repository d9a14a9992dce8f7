"""Label scores: balanced accuracy with an interval that covers, and held-out images that keep chance at chance."""

from __future__ import annotations

import numpy as np
import pytest

from engine.blindspots.label_scores import balanced_accuracy, is_uncertain, score_halves, split_halves, strong_from


def test_balanced_accuracy_is_the_mean_of_both_shares_and_chance_is_a_half():
    active = np.repeat([True, False], [10, 90])
    said = np.zeros(100, bool)
    said[:8] = said[10:19] = True
    found = balanced_accuracy(said, active)
    assert found.score == pytest.approx((0.8 + 0.9) / 2) and found.images == 100
    assert balanced_accuracy(np.ones(100, bool), active).score == 0.5
    assert np.isnan(balanced_accuracy(said, np.ones(100, bool)).score)


def test_the_interval_covers_the_truth_at_its_rate():
    rng = np.random.default_rng(0)
    for active_share, silent_share, active, silent in ((0.9, 0.8, 12, 40), (0.95, 0.95, 8, 8), (1.0, 0.97, 6, 200)):
        truth, mask = (active_share + silent_share) / 2, np.repeat([True, False], [active, silent])
        hits = 0
        for _ in range(300):
            said = np.r_[rng.random(active) < active_share, rng.random(silent) >= silent_share]
            found = balanced_accuracy(said, mask)
            hits += found.low <= truth <= found.high
        assert hits / 300 >= 0.93


def test_what_is_strong_in_a_half_is_measured_in_the_other():
    energies = np.r_[np.full(40, 4.0), np.full(40, 1.9), np.zeros(80)]
    assert strong_from(energies) == 2.0 and strong_from(np.zeros(3)) == np.inf
    halves = split_halves(160)
    assert sorted(np.concatenate(halves)) == list(range(160)) and abs(len(halves.first) - len(halves.second)) <= 1
    perfect, never = energies == 4, np.zeros(160, bool)
    assert score_halves(energies, (perfect, perfect), halves).score == 1
    assert score_halves(energies, (never, never), halves).score == 0.5


def test_low_scores_wide_intervals_and_missing_scores_are_uncertain():
    assert is_uncertain([0.9, 0.55, 0.7, np.nan], [0.8, 0.52, 0.49, np.nan]).tolist() == [False, True, True, True]
