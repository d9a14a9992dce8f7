"""Concepts are matched to labels on one half of the images, and the match must hold on the other."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import average_precision_score

from engine.blindspots.recognition import average_precisions, match_labels

IMAGES, LABELS = 120, 5


@pytest.fixture
def shown() -> np.ndarray:
    return np.random.default_rng(0).random((IMAGES, LABELS)) < np.array([0.3, 0.2, 0.4, 0.1, 0.02])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_average_precision_is_scikit_learns_with_its_ties(shown: np.ndarray, share: float) -> None:
    rng = np.random.default_rng(1)
    energy = np.where(rng.random(IMAGES) < share, rng.integers(1, 9, IMAGES), 0).astype(np.float32)
    found = average_precisions(sparse.csc_matrix(energy[:, None]), shown)
    wanted = [average_precision_score(column, energy) for column in shown.T]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_a_concept_gets_the_label_that_it_ranks_best(shown: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    energy = rng.random((IMAGES, 4)) * 0.1
    energy[:, 1] += shown[:, 2]
    energy[:, 3] += shown[:, 0]
    found = match_labels(sparse.csr_matrix(energy.astype(np.float32)), shown, np.array([0, 1, 3]))
    assert [(match.concept, match.label) for match in found] == [(1, 2), (3, 0)]
    assert all(match.precision == 1 and match.images >= 4 for match in found)


def test_chance_and_rare_labels_match_nothing(shown: np.ndarray) -> None:
    """The best of many labels of noise is not taken for a match, nor is a label that hardly any image shows."""
    rng = np.random.default_rng(3)
    noise = sparse.csr_matrix(rng.random((IMAGES, 30)).astype(np.float32))
    many = rng.random((IMAGES, 400)) < 0.1
    assert match_labels(noise, many, range(30)) == []
    rare = np.zeros((IMAGES, 1), bool)
    rare[:3] = True
    assert match_labels(sparse.csr_matrix(rare.astype(np.float32)), rare, [0]) == []
    assert match_labels(noise[:0], many[:0], range(30)) == []
    assert match_labels(noise, np.ones((IMAGES, 2), bool), range(30)) == [], "what every image shows"
