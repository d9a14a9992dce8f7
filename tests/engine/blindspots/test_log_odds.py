import math

import numpy as np
import pytest

from engine.blindspots.words import weighted_log_odds


def test_the_z_score_is_monroes_formula_by_hand():
    z = weighted_log_odds(np.array([8, 2]), np.array([10, 80]), np.array([1.0, 3.0]))
    delta = math.log(9 / 5) - math.log(11 / 83)
    assert z[0] == pytest.approx(delta / math.sqrt(1 / 9 + 1 / 11))


def test_swapping_the_texts_turns_the_sign():
    inside, outside, prior = np.array([3, 0, 7]), np.array([5, 9, 1]), np.array([1.0, 1, 1])
    np.testing.assert_allclose(weighted_log_odds(inside, outside, prior), -weighted_log_odds(outside, inside, prior))


def test_equal_texts_prefer_no_word():
    counts = np.array([3, 1, 7])
    np.testing.assert_allclose(weighted_log_odds(counts, counts, np.ones(3)), 0)


def test_a_frequent_word_outranks_a_rare_one_of_the_same_ratio():
    z = weighted_log_odds(np.array([40, 2, 58]), np.array([20, 1, 979]), np.array([6.0, 0.3, 100]))
    assert z[0] > z[1] > 0


def test_a_word_that_nobody_says_scores_zero():
    assert weighted_log_odds(np.array([0, 1]), np.array([0, 5]), np.array([0.0, 1.0]))[0] == 0


def test_many_sets_are_scored_at_once():
    inside, outside, prior = np.array([[3, 0, 7], [1, 1, 1]]), np.array([5, 9, 1]), np.ones(3)
    z = weighted_log_odds(inside, outside, prior)
    np.testing.assert_array_equal(z[1], weighted_log_odds(inside[1], outside, prior))
