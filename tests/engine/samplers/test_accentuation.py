import pytest
import torch

from engine.samplers.feature_visualization import Accentuation, ChangeParameterisation, corpus_seeds
from engine.samplers.models import ModelBundle
from tests.engine.samplers.peers import assert_batches_agree, assert_previews, redness


@pytest.fixture
def encoder(atlas):
    return ModelBundle(atlas, "cpu").encoder


@pytest.fixture
def seeds(atlas, encoder):
    return corpus_seeds(atlas, encoder.spec, 4)


def test_without_strength_the_seed_image_comes_back(encoder, seeds):
    samples = Accentuation(encoder, seeds[:1], steps=5, strength=0.0).sample(redness, 2)
    torch.testing.assert_close(samples.images, seeds[[0, 0]], atol=1e-4, rtol=0)


def test_strength_brings_the_score_out_and_the_features_away(encoder, seeds):
    def drawn(strength):
        return Accentuation(encoder, seeds[:1], steps=30, strength=strength).sample(redness, 2)

    def distance(images):
        return ChangeParameterisation(encoder, seeds[[0, 0]]).penalty(images, torch.arange(2))

    seed, weak, strong = drawn(0.0), drawn(0.3), drawn(30.0)
    assert (weak.scores > seed.scores).all() and (strong.scores > weak.scores).all()
    assert distance(seed.images).max() < 1e-8 < distance(weak.images).min()
    assert (distance(strong.images) > distance(weak.images)).all()


def test_samples_start_from_different_real_images(atlas, encoder, seeds):
    assert len(seeds) == 4 and len(corpus_seeds(atlas, encoder.spec)) == len(atlas.images.query("source == 'real'"))
    images = Accentuation(encoder, seeds, steps=1, strength=0.0).sample(redness, 12).images
    nearest = torch.cdist(images.flatten(1), seeds.flatten(1)).argmin(dim=1)
    assert len(nearest.unique()) > 1


def test_same_seed_same_image_in_any_batch_with_previews(encoder, seeds):
    assert_batches_agree(Accentuation(encoder, seeds, steps=8, strength=3.0))
    assert_previews(Accentuation(encoder, seeds, steps=4), 4)
