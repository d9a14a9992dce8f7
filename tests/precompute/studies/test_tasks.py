"""Tasks: likeness to a reference image, and fitting a text, against transformers' own CLIP."""

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from engine.errors import BlindspotError
from engine.priors.loading import open_pipeline
from engine.samplers.models import ModelBundle
from precompute.studies.tasks import CLIP_MEAN, CLIP_STD, ReferenceSimilarity, text_alignment
from tests.engine.priors.tiny import tiny_pipeline


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_an_image_is_most_like_itself_and_likeness_has_a_slope(atlas, images):
    encoder = ModelBundle(atlas, "cpu").encoder
    task = ReferenceSimilarity(encoder, images[1])
    images.requires_grad_()
    found = task(images)
    assert found[1].item() == pytest.approx(1, abs=1e-5) and found.argmax() == 1 and found.min() >= -1
    found[0].backward()
    assert images.grad[0].abs().max() > 0


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return open_pipeline(tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny"), "cpu", torch.float32)


def test_fitting_a_text_is_clip_s_own_cosine(pipeline, images):
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {"vocab_size": len(pipeline.tokenizer), "eos_token_id": pipeline.tokenizer.eos_token_id}
    config = CLIPConfig(text_config=text, vision_config=layers | {"image_size": 32, "patch_size": 8}, projection_dim=12)
    clip = CLIPModel(config).eval()
    clip.config.vision_config.projection_dim = clip.config.text_config.projection_dim = 12
    vision = CLIPVisionModelWithProjection(clip.config.vision_config).eval()
    written = CLIPTextModelWithProjection(clip.config.text_config).eval()
    for model in (vision, written):
        model.load_state_dict(clip.state_dict(), strict=False)
    task = text_alignment(
        SimpleNamespace(image_encoder=vision, text_encoder=written, tokenizer=pipeline.tokenizer), "a red ring"
    )
    words = pipeline.tokenizer("a red ring", padding="max_length", truncation=True, return_tensors="pt").input_ids
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        exact = clip(input_ids=words, pixel_values=(images - mean) / std).logits_per_image[:, 0]
    torch.testing.assert_close(task(images), exact / clip.logit_scale.exp(), atol=1e-5, rtol=1e-4)


def test_a_pipeline_without_a_joint_space_says_so(pipeline):
    with pytest.raises(BlindspotError, match=r"StableDiffusionPipeline has no image encoder .* a reference image"):
        text_alignment(pipeline, "a red ring")
