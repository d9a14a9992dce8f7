"""Tasks: likeness to a reference image and fitting a text, as scores and with every kind of prior."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.generation import GenerationRequest, generate_images
from engine.samplers.models import ModelBundle
from engine.samplers.registry import SamplerSettings, TaskSettings, create
from engine.samplers.tasks import (
    PixelSimilarity,
    ReferenceSimilarity,
    TaskInjection,
    TextAlignment,
    reference_image,
    task_of,
    with_room,
)
from engine.vision.text_image import TextImageEncoder
from tests.engine.priors.test_every_prior import MAKERS as PRIORS
from tests.engine.vision.tiny_text import MAKERS as ENCODERS

KINDS = ("pixel", "adm", "latent", "xl", "lcm", "dit of a class")
CONCEPT = 2


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=ENCODERS)
def text_encoder(request, tmp_path_factory):
    return ENCODERS[request.param](tmp_path_factory.mktemp("joint") / request.param)


def redness(images):
    """How much redder than green, [n]."""
    return (images[:, 0] - images[:, 1]).mean(dim=(1, 2))


def assert_task(task, images):
    """It has a slope for each image by itself, and its values lie between its bounds."""
    images = images.clone().requires_grad_()
    found = task(images)
    assert found.shape == (3,) and task.lowest <= found.min() and found.max() <= task.highest
    found[0].backward()
    assert images.grad[0].abs().max() > 0 and images.grad[1].abs().max() == 0


def test_an_image_is_most_like_itself_by_the_encoder(atlas, images):
    task = ReferenceSimilarity(ModelBundle(atlas, "cpu").encoder, images[1])
    found = task(images)
    assert found[1].item() == pytest.approx(1, abs=1e-5) and found.argmax() == 1
    assert_task(task, images)


def test_likeness_by_pixels_is_minus_the_mean_squared_error_at_any_size(images):
    task = PixelSimilarity(images[1])
    exact = [-np.mean((image - images[1].numpy()) ** 2) for image in images.numpy()]
    np.testing.assert_allclose(task(images), exact, rtol=1e-5)
    assert_task(task, images)
    grey = PixelSimilarity(torch.full((3, 32, 32), 0.25))
    np.testing.assert_allclose(grey(torch.full((1, 3, 48, 48), 0.75)), [-0.25], rtol=1e-5)


def test_fitting_a_text_is_the_cosine_of_both_embeddings(text_encoder, images):
    encoder = TextImageEncoder.from_pretrained(str(text_encoder))
    task = TextAlignment(encoder, "a ring")
    torch.testing.assert_close(task(images), (encoder.images(images) @ encoder.texts(["a ring"]).T)[:, 0])
    assert_task(task, images)


@pytest.mark.parametrize("kind", KINDS)
def test_every_prior_serves_every_task_and_still_the_score(kind, text_encoder, images, tmp_path):
    """Guided towards f, samples serve it better than guided away from it, and s is what they are scored by."""
    prior = PRIORS[kind](tmp_path / "pipeline")
    tasks = (TextAlignment(TextImageEncoder.from_pretrained(str(text_encoder)), "a ring"), PixelSimilarity(images[0]))
    sampler = EnergyDPS(prior, steps=4, strength=1.0)
    for task in tasks:
        towards, away = (TaskInjection(sampler, task, ratio).sample(redness, 2) for ratio in (100.0, -100.0))
        assert task(towards.images).mean() > task(away.images).mean()
        torch.testing.assert_close(towards.scores, redness(towards.images))


def test_a_cap_leaves_room_for_what_a_task_adds_and_a_strength_stays_in_units_of_the_score(atlas, images):
    models, text = ModelBundle(atlas, "cpu"), SimpleNamespace(lowest=-1.0, highest=1.0)
    sampler = create("energydps", models, SamplerSettings(score_cap=2.0, strength=0.5))
    assert with_room(sampler, text, 3.0).score_cap == 5 and with_room(sampler, text, -3.0).score_cap == 5
    assert with_room(sampler, PixelSimilarity(images[0]), 3.0).score_cap == 2
    assert with_room(sampler, text, 3.0).strength == sampler.strength == 32 * 0.5 / 2
    smc = create("energydps-smc", models, SamplerSettings(score_cap=2.0))
    assert with_room(smc, text, 3.0) is smc


def test_a_reference_is_an_image_of_the_atlas_or_a_file(atlas, tmp_path):
    models = ModelBundle(atlas, "cpu")
    spec, file = models.encoder.spec, tmp_path / "like.png"
    atlas.image(3).save(file)
    torch.testing.assert_close(reference_image(models, "3", spec), reference_image(models, str(file), spec))
    with pytest.raises(
        BlindspotError, match=r"no image file nowhere\.png: give a file, or the number of an image, 0 to"
    ):
        reference_image(models, "nowhere.png", spec)
    with pytest.raises(BlindspotError, match="image 999"):
        reference_image(models, "999", spec)


def test_a_drawing_serves_a_text_and_says_how_well(atlas, text_encoder):
    def drawn(**task):
        request = GenerationRequest(CONCEPT, count=2, steps=4, strength=1.0, candidates=1, **task)
        return generate_images(atlas, request, "cpu")

    text = {"text": "a ring", "text_encoder": str(text_encoder)}
    plain, served, avoided = drawn(), drawn(**text, task_weight=1000.0), drawn(**text, task_weight=-1000.0)
    task = task_of(ModelBundle(atlas, "cpu"), served.request)
    with torch.no_grad():
        np.testing.assert_allclose(served.task_scores, task(served.samples.images), rtol=1e-5)
    assert np.mean(served.task_scores) > np.mean(avoided.task_scores)
    assert plain.task_scores is None and served.request.parameters()["text"] == "a ring"
    assert "text" not in plain.request.parameters()
    usual = drawn(like="0", like_by="pixels")
    assert usual.request.task_weight == pytest.approx(usual.reference_score)


def test_an_atlas_whose_encoder_knows_texts_needs_no_other(drawable, tmp_path, monkeypatch, text_encoder):
    atlas = Atlas.open(drawable)
    with pytest.raises(BlindspotError, match="cannot say how well an image fits a text: give a CLIP or SigLIP"):
        task_of(ModelBundle(atlas, "cpu"), TaskSettings(text="a ring"))
    monkeypatch.setattr("engine.samplers.models.ModelBundle._model", lambda self, described: text_encoder)
    assert task_of(ModelBundle(atlas, "cpu"), TaskSettings(text="a ring")).encoder.spec.id == str(text_encoder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"text": "a", "like": "0"}, "fit a text or resemble an image, not both"),
        ({"text": " "}, "The text that images should fit is empty"),
        ({"text_encoder": "clip"}, "but no text"),
        ({"like": "0", "like_by": "eye"}, "cannot be compared by 'eye': choose encoder or pixels"),
        ({"task_weight": 1.0}, "goes with a text or an image"),
        ({"like": "0", "task_weight": 0.0}, "a finite number other than 0"),
        ({"like": "0", "task_weight": float("nan")}, "a finite number other than 0"),
        ({"like": "0", "method": "retrieval"}, "'retrieval' has no strength, so it cannot serve a task"),
    ],
)
def test_a_senseless_task_is_one_sentence(settings, sentence):
    with pytest.raises(BlindspotError, match=sentence):
        GenerationRequest(CONCEPT, **settings)


def test_a_file_that_is_no_image_is_one_sentence(atlas, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(BlindspotError, match=r"text\.png"):
        generate_images(atlas, GenerationRequest(CONCEPT, like=str(tmp_path / "text.png")), "cpu")
    Image.new("RGB", (5, 7), "red").save(tmp_path / "small.png")
    spec = ModelBundle(atlas, "cpu").encoder.spec
    assert reference_image(ModelBundle(atlas, "cpu"), str(tmp_path / "small.png"), spec).shape == (3, 32, 32)
