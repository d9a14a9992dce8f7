import numpy as np
import pytest

from engine.blindspots.divergence import memorisation_p
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
    p = memorisation_p(similarity, nearest(real, real, skip_own=True)[1])
    assert near[:6].tolist() == [0, 1, 2, 3, 4, 77]
    assert (p[:6] <= 0.01).all() and (p[6:] <= 0.01).sum() <= 8


def test_p_is_uniform_when_drawn_images_are_as_new_as_real_ones():
    rng = np.random.default_rng(1)
    real, drawn = rng.normal(size=(2, 1500, 4))
    p = memorisation_p(nearest(drawn, real)[1], nearest(real, real, skip_own=True)[1])
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.03)
    assert np.median(p) == pytest.approx(0.5, abs=0.05)


def test_duplicates_in_the_corpus_acquit():
    natural = np.r_[np.ones(20), np.full(80, 0.5)]
    assert memorisation_p(np.ones(1), natural) == pytest.approx(21 / 101)


def test_a_corpus_without_neighbours_is_refused():
    with pytest.raises(BlindspotError, match="at least one"):
        memorisation_p(np.zeros(1), np.ones(0))
