"""Chosen members differ, a k-DPP has its exact law, and a set's report tells what f needs from what it ignores."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chisquare

from engine.errors import BlindspotError
from engine.invariance.members import farthest_first, k_dpp, similarity, what_varies

RNG = np.random.default_rng(0)


def clusters(sizes, spread=0.02):
    """Directions around the axes, so many around each."""
    centres = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    return centres + spread * np.random.default_rng(1).normal(size=centres.shape)


def test_farthest_first_takes_one_of_each_cluster():
    embeddings = clusters([40, 1, 5, 30])
    owner = np.repeat(np.arange(4), [40, 1, 5, 30])
    chosen = farthest_first(embeddings * RNG.uniform(0.1, 9, (76, 1)), 4)
    assert sorted(owner[chosen]) == [0, 1, 2, 3]
    assert owner[farthest_first(embeddings, 1, query=-np.eye(4)[2] + np.eye(4)[0])[0]] == 2
    assert sorted(farthest_first(embeddings, 76)) == list(range(76))


def test_farthest_first_is_within_half_of_the_best_choice():
    units = RNG.normal(size=(12, 3))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    apart = np.linalg.norm(units[:, None] - units, axis=2)
    smallest = {s: min(apart[a, b] for a, b in combinations(s, 2)) for s in combinations(range(12), 4)}
    assert smallest[tuple(sorted(farthest_first(units, 4)))] >= max(smallest.values()) / 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_k_dpp_draws_every_set_by_its_determinant(count):
    factor = np.random.default_rng(2).normal(size=(6, 5))
    kernel = factor @ factor.T
    sets = list(combinations(range(6), count))
    determinants = np.array([max(np.linalg.det(kernel[np.ix_(s, s)]), 0) for s in sets])
    draws = Counter(tuple(int(row) for row in k_dpp(kernel, count, seed)) for seed in range(3000))
    expected = 3000 * determinants / determinants.sum()
    usual = expected > 5
    assert chisquare([draws[s] for s, use in zip(sets, usual, strict=True) if use], expected[usual],
                     sum_check=False).pvalue > 1e-3  # fmt: skip
    assert sum(draws.values()) == 3000 and set(draws) <= set(sets)


def test_a_k_dpp_of_many_members_takes_different_ones():
    embeddings = clusters([200, 40, 10, 50])
    owner = np.repeat(np.arange(4), [200, 40, 10, 50])
    kernel = similarity(embeddings)
    np.testing.assert_allclose(kernel, kernel.T)
    found = [len(set(owner[k_dpp(kernel, 4, seed)])) for seed in range(20)]
    chance = [len(set(owner[np.random.default_rng(seed).choice(300, 4, replace=False)])) for seed in range(20)]
    assert np.mean(found) > np.mean(chance) + 1
    assert len(set(k_dpp(kernel, 60, 0))) == 60


def test_equal_members_cannot_be_told_apart():
    with pytest.raises(BlindspotError, match="Of 5 members only 1 differ"):
        k_dpp(np.ones((5, 5)), 2)
    for choose in (lambda count: k_dpp(np.eye(5), count), lambda count: farthest_first(np.eye(5), count)):
        for count in (0, 6):
            with pytest.raises(BlindspotError, match=f"{count} of 5 members were asked for: choose 1 to 5"):
                choose(count)
    with pytest.raises(BlindspotError, match="no direction"):
        farthest_first(np.zeros((3, 2)), 1)
    assert similarity(np.ones((3, 2))).shape == (3, 3)


def test_the_report_tells_what_is_needed_ignored_and_excluded():
    rng = np.random.default_rng(3)
    reference = rng.exponential(size=(400, 6)) * (rng.random((400, 6)) < 0.6)
    members = rng.exponential(size=(32, 6)) * (rng.random((32, 6)) < 0.6)
    members[:, 1] = 1.5 + 0.01 * rng.normal(size=32)  # f needs it
    members[:, 2] = 0  # f forbids it
    members[:, 3] *= 3  # f ignores it
    reference[:, 4] = members[:, 4] = 0  # dead
    report = what_varies(members, reference, ["sky", "dog", "cat", "grass", "dead", ""])
    assert [spread.name for spread in report.needed] == ["dog"]
    assert [spread.name for spread in report.excluded] == ["cat"]
    assert report.varies[0].name == "grass" and {spread.concept for spread in report.varies} == {0, 3, 5}
    assert report.varies[0].ratio == pytest.approx(members[:, 3].var(ddof=1) / reference[:, 3].var(ddof=1))
    assert {spread.name for spread in report.varies} == {"sky", "grass", "concept 5"}
    assert report.needed[0].present == 1 and report.needed[0].mean == pytest.approx(1.5, abs=0.01)
    assert len(what_varies(members, reference, count=1).varies) == 1


def test_a_concept_that_does_not_vary_in_the_reference_has_no_ratio():
    codes = np.ones((10, 1))
    report = what_varies(codes * 0, codes)
    assert report.varies == report.needed == []
    assert report.excluded[0].ratio is None


def test_too_few_members_say_nothing():
    codes = np.random.default_rng(0).random((20, 3))
    assert what_varies(codes[:7], codes) is None and what_varies(codes[:8], codes) is not None
    assert what_varies(codes, codes[:1]) is None
    with pytest.raises(BlindspotError, match="same concepts"):
        what_varies(codes, codes[:, :2])
    with pytest.raises(BlindspotError, match="not finite"):
        what_varies(codes * np.nan, codes)
