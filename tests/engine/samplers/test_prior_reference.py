"""Drawings are measured in the encoder's space against samples of the prior that share no noise with them."""

import math

import numpy as np
import pytest
import torch

from engine.blindspots.metrics import frechet_distance
from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from engine.samplers.metrics import (
    PRIOR_BATCH,
    PriorReference,
    diversity,
    embed,
    kernel_distance,
    prior_images,
    spectral_slope,
)
from engine.samplers.models import ModelBundle
from precompute.studies.base import concept_subject


@pytest.fixture
def models(atlas):
    return ModelBundle(atlas, "cpu")


def test_a_batch_is_measured_by_all_of_its_numbers(models):
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    own = embed(models.encoder, torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    found = PriorReference(models.encoder, own, lambda own, seen: frechet_distance(own, seen).distance).measure(images)
    seen = models.encoder(images).embedding().detach().numpy()
    expected = (diversity(seen), spectral_slope(images).mean(), kernel_distance(own, seen))
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4)
    assert found.frechet == pytest.approx(frechet_distance(own, seen).distance, rel=1e-3)
    assert math.isnan(PriorReference(models.encoder, own).measure(images).frechet)


def test_embeddings_have_length_one_in_any_batch(models):
    images = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = embed(models.encoder, images)
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(seen[66:], embed(models.encoder, images[66:]), atol=1e-4)


def test_the_prior_is_drawn_in_batches_of_different_noise(models):
    images = prior_images(models, 2, PRIOR_BATCH + 3)
    assert len(images) == PRIOR_BATCH + 3 and len(torch.unique(images.flatten(1), dim=0)) == PRIOR_BATCH + 3
    torch.testing.assert_close(prior_images(models, 2, 5), images[:5], rtol=0, atol=1e-3)


def test_the_prior_s_samples_are_not_the_unpushed_drawings_of_the_same_seed(atlas, models):
    unpushed = concept_subject(atlas, GenerationRequest(2, count=4, steps=2, seed=3), "cpu").draw(0.0).samples.images
    own = PriorReference.sample(models, 2, 4, seed=3).embeddings
    assert np.abs(own - embed(models.encoder, unpushed)).max(axis=1).min() > 1e-4
    with pytest.raises(BlindspotError, match="two or more samples to be compared with, not 1"):
        PriorReference.sample(models, 2, 1)
