"""Growing activation: levels at shares of the best real images, each sample beside a real image of its score."""

import itertools
import math

import numpy as np
import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from engine.samplers.metrics import PriorReference
from engine.samplers.models import ModelBundle
from engine.samplers.retrieval import Pool, score_pool
from precompute.studies.base import concept_subject
from precompute.studies.sweeps import draw_levels, nearest_real

REQUEST = GenerationRequest(2, count=4, steps=6, candidates=2)


@pytest.fixture(scope="module")
def setting(drawable):
    from engine.atlas import Atlas

    atlas = Atlas.open(drawable)
    subject = concept_subject(atlas, REQUEST, "cpu")
    pool = score_pool(atlas, subject.score, subject.models.encoder.spec)
    return atlas, subject, pool, PriorReference.sample(ModelBundle(atlas, "cpu"), 6, 4)


@pytest.fixture(scope="module")
def found(setting):
    _, subject, pool, reference = setting
    return draw_levels(subject, [1.0, 0.0, 40.0], pool, reference)


def test_a_level_has_its_share_of_the_best_real_images_score(setting, found):
    subject = setting[1]
    assert [row.share for row in found.rows] == [0, 1, 40]
    unpushed, level, beyond = found.rows
    assert unpushed.strength == 0 and math.isnan(unpushed.target) and unpushed.reached
    assert unpushed.score == pytest.approx(subject.draw(0.0).mean)
    assert level.target == subject.best and level.reached and level.note == ""
    assert abs(level.score - level.target) <= max(0.05 * level.target, level.score_error)
    assert not beyond.reached and "is out of reach" in beyond.note and beyond.target == 40 * subject.best
    assert beyond.score >= level.score


def test_samples_are_in_order_of_score_beside_their_own_real_images(setting, found):
    _, subject, pool, _ = setting
    known = dict(zip(pool.images.tolist(), pool.scores.tolist(), strict=True))
    for row, images in zip(found.rows, found.images, strict=True):
        rows = [sample for sample in found.samples if sample.share == row.share]
        scores = [sample.score for sample in rows]
        assert scores == sorted(scores) and [sample.rank for sample in rows] == [0, 1, 2, 3]
        with torch.no_grad():
            np.testing.assert_allclose(subject.score(images), scores, rtol=1e-4)
        assert len({sample.real_image for sample in rows}) == 4
        assert all(sample.real_score == known[sample.real_image] for sample in rows)
        assert row.score == pytest.approx(np.mean(scores))
        assert row.real_score == pytest.approx(np.mean([sample.real_score for sample in rows]))


def test_real_images_are_nearest_by_every_assignment():
    rng = np.random.default_rng(0)
    scores, pool = rng.random(3), Pool(np.arange(6), rng.random(6))
    best = min(itertools.permutations(range(6), 3), key=lambda places: np.abs(scores - pool.scores[list(places)]).sum())
    assert tuple(nearest_real(scores, pool)) == best


@pytest.mark.parametrize("shares", [[], [-0.5], [math.inf]])
def test_shares_are_numbers_of_nothing_or_more(setting, shares):
    _, subject, pool, reference = setting
    with pytest.raises(BlindspotError, match="shares of 0 or above"):
        draw_levels(subject, shares, pool, reference)


def test_too_few_real_images_are_one_sentence(setting):
    _, subject, pool, reference = setting
    with pytest.raises(BlindspotError, match="4 samples need as many real images beside them, and there are 3"):
        draw_levels(subject, [1.0], Pool(pool.images[:3], pool.scores[:3]), reference)
