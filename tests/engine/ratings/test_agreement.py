"""Agreement: Krippendorff's own worked example, and descriptions that say the same lie together."""

import math

import numpy as np
import pytest

from engine.errors import BlindspotError
from engine.ratings.agreement import BUILT_IN, alpha_interval, embed_texts, krippendorff_alpha, weighted_variance
from tests.engine.vision.tiny_text import tiny_clip

NONE = math.nan
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
).T
"""Four observers, twelve units (K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, example C)."""


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level, alpha):
    assert krippendorff_alpha(PUBLISHED, level) == pytest.approx(alpha, abs=5e-4)
    found = alpha_interval(PUBLISHED, level)
    assert found.low < found.value == krippendorff_alpha(PUBLISHED, level) < found.high <= 1


def test_alpha_is_1_for_equal_answers_and_about_0_for_chance():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.integers(1, 5, (40, 1)), 3, axis=1).astype(float)
    assert krippendorff_alpha(same, "ordinal") == 1
    assert abs(krippendorff_alpha(rng.integers(1, 5, (4000, 3)).astype(float), "interval")) < 0.03
    assert math.isnan(krippendorff_alpha(np.full((5, 3), 2.0), "ordinal"))  # nothing differs, so nothing is known
    assert math.isnan(krippendorff_alpha(np.array([[1.0, NONE], [NONE, 2.0]]), "nominal"))


def test_weighted_variance_is_the_weighted_mean_square_from_the_weighted_mean():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert weighted_variance(vectors, np.array([1.0, 1.0])) == pytest.approx(0.5)
    assert weighted_variance(vectors, np.array([3.0, 1.0])) == pytest.approx(1 - (0.75**2 + 0.25**2))
    assert weighted_variance(vectors[[0, 0]], np.array([2.0, 4.0])) == 0
    assert math.isnan(weighted_variance(vectors[:1], np.array([2.0])))


def test_the_built_in_embedding_puts_like_words_together_and_says_what_it_is():
    texts = ["a red ball", "red balls", "the red ball", "wooden palm trees", "palm tree of wood", ""]
    vectors, space = embed_texts(texts)
    assert space == BUILT_IN and not vectors[-1].any()
    alike, unlike = vectors[0] @ vectors[1], vectors[0] @ vectors[3]
    assert alike > 0.4 > unlike and np.linalg.norm(vectors[:5], axis=1) == pytest.approx(np.ones(5))
    assert not embed_texts(["", " "]).vectors.any()


def test_descriptions_are_embedded_by_a_text_tower_where_one_is_given(tmp_path):
    vectors, space = embed_texts(["a red ball", "a sky"], str(tiny_clip(tmp_path / "clip")))
    assert "clip" in space and np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-5)


def test_a_model_that_is_not_there_is_one_sentence():
    with pytest.raises(BlindspotError, match="There is no text model"):
        embed_texts(["a"], "./nowhere")
