import numpy as np
import pandas as pd
import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.retrieval import Pool, PoolRetrieval, Retrieval, score_pool
from engine.samplers.scores import ConceptScore

CONCEPT = 2


@pytest.fixture
def models(atlas):
    return ModelBundle(atlas, "cpu")


@pytest.fixture
def score(models):
    return ConceptScore(models.encoder, models.dictionary, [CONCEPT])


def test_a_pool_is_every_real_image_with_its_score(atlas, models, score):
    pool = score_pool(atlas, score, models.encoder.spec)
    assert pool.images.tolist() == atlas.images.index[atlas.images["source"] == "real"].tolist()
    drawn = PoolRetrieval(atlas, models.encoder.spec, strength=0.0, pool=pool).sample(score, 5)
    torch.testing.assert_close(drawn.scores, score(drawn.images).detach(), atol=1e-5, rtol=1e-4)


def test_images_are_drawn_by_the_exact_weights_of_the_tilt(atlas, models, score):
    """Two images, of scores 0 and 1: the better one has the share e^beta / (1 + e^beta)."""
    pool = Pool(atlas.images.index[:2].to_numpy(), np.array([0.0, 1.0]))
    for beta in (-1.0, 0.0, 2.0):
        retrieval = PoolRetrieval(atlas, models.encoder.spec, strength=beta, pool=pool)
        share = np.exp(beta) / (1 + np.exp(beta))
        assert retrieval.weights(pool.scores).tolist() == pytest.approx([1 - share, share])
        assert retrieval.sample(score, 600).scores.mean().item() == pytest.approx(share, abs=0.08)


def test_a_steep_tilt_always_shows_the_best_image(atlas, models, score):
    pool = Pool(atlas.images.index[:3].to_numpy(), np.array([0.0, 2.0, 1.0]))
    retrieval = PoolRetrieval(atlas, models.encoder.spec, strength=1e6, pool=pool)
    assert retrieval.sample(score, 4).scores.tolist() == [2.0] * 4


def test_image_i_is_the_same_in_any_batch(atlas, models, score):
    retrieval = PoolRetrieval(atlas, models.encoder.spec, strength=1.0)
    assert torch.equal(retrieval.sample(score, 5, seed=1).images[:2], retrieval.sample(score, 2, seed=1).images)
    assert not torch.equal(retrieval.sample(score, 9, seed=1).images, retrieval.sample(score, 9, seed=2).images)


def test_senseless_settings_are_refused(atlas, models, score):
    spec = models.encoder.spec
    with pytest.raises(BlindspotError, match="finite number, not nan"):
        PoolRetrieval(atlas, spec, strength=float("nan"))
    with pytest.raises(BlindspotError, match="0 samples were asked for"):
        PoolRetrieval(atlas, spec).sample(score, 0)


def test_it_returns_the_atlas_s_exemplars_with_their_scores(atlas, score):
    events = []
    samples = Retrieval(atlas).sample(score, 3, on_step=events.append)
    expected = atlas.exemplars("real", CONCEPT, count=3)["image"].tolist()
    assert len(expected) and torch.equal(samples.images, thumbnails(atlas, expected, score.encoder.spec))
    torch.testing.assert_close(samples.scores, score(samples.images))
    assert [(event.step, event.steps) for event in events] == [(1, 1)]


def test_a_concept_that_no_real_image_has_is_one_sentence(atlas, score):
    class Empty:
        info = atlas.info

        def exemplars(self, source, concept, count):
            return pd.DataFrame({"image": []})

    with pytest.raises(BlindspotError, match="No real image of atlas 'synthetic' excites concept 2: draw it instead"):
        Retrieval(Empty()).sample(score, 3)
