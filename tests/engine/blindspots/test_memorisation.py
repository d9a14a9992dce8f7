import numpy as np
import pytest

from engine.blindspots.divergence import memorisation_candidates
from engine.errors import BlindspotError


def nearest(queries: np.ndarray, corpus: np.ndarray, *, skip_own: bool = False) -> tuple[np.ndarray, np.ndarray]:
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, corpus)]
    cosine = unit[0] @ unit[1].T
    if skip_own:
        np.fill_diagonal(cosine, -1)
    return cosine.argmax(1), cosine.max(1)


def test_copies_are_confirmed_and_fresh_images_are_not():
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(size=(2, 400, 6))
    drawn[:5] = real[:5] + rng.normal(0, 1e-3, (5, 6))
    drawn[5] = real[77]
    near, similarity = nearest(drawn, real)
    l2 = np.linalg.norm(drawn - real, axis=1)
    l2[5] = 1e-9
    found = memorisation_candidates(l2, near, similarity, np.arange(400), nearest(real, real, skip_own=True)[1])
    assert set(found.pairs[:6]) == set(range(6)) and len(found.pairs) == 100
    assert found.confirmed[:6].all() and found.confirmed[6:].sum() <= 2
    assert found.own[1:6].all() and not found.own[0] and found.nearest[0] == 77


def test_p_is_uniform_when_drawn_images_are_as_new_as_real_ones():
    rng = np.random.default_rng(1)
    real, drawn = rng.normal(size=(2, 1500, 4))
    near, similarity = nearest(drawn, real)
    natural = nearest(real, real, skip_own=True)[1]
    found = memorisation_candidates(np.zeros(1500), near, similarity, near, natural, count=1500, level=0.1)
    assert found.confirmed.mean() == pytest.approx(0.1, abs=0.03)
    assert np.median(found.p) == pytest.approx(0.5, abs=0.05)


def test_duplicates_in_the_corpus_acquit():
    natural = np.r_[np.ones(20), np.full(80, 0.5)]
    found = memorisation_candidates(np.zeros(1), np.zeros(1), np.ones(1), np.zeros(1), natural)
    assert found.p[0] == pytest.approx(21 / 101) and not found.confirmed[0]


def test_missing_neighbours_are_refused():
    with pytest.raises(BlindspotError, match="3 divergences, 2 neighbours"):
        memorisation_candidates(np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3), np.ones(4))
    with pytest.raises(BlindspotError, match="at least one"):
        memorisation_candidates(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.ones(0))
