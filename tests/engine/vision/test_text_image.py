"""Texts and images in one space, against transformers' own CLIP and SigLIP with their own processors."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, Dinov2Config, Dinov2Model

from engine.errors import BlindspotError
from engine.vision.preprocess import to_tensor
from engine.vision.text_image import TextImageEncoder
from tests.engine.vision.tiny_text import MAKERS

TEXTS = ["a red ring", "blue"]


@pytest.fixture(scope="module", params=MAKERS)
def folder(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("joint") / request.param)


@pytest.fixture(scope="module")
def encoder(folder):
    return TextImageEncoder.from_pretrained(str(folder))


def test_the_cosine_is_the_model_s_own(folder, encoder):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    given = AutoProcessor.from_pretrained(folder)(
        text=TEXTS, images=pictures, padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder).eval()(**given)
        exact = torch.nn.functional.normalize(found.image_embeds) @ torch.nn.functional.normalize(found.text_embeds).T
        ours = encoder.images(to_tensor(pictures)) @ encoder.texts(TEXTS).T
    torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(ours[:, 0], ours[:, 1], atol=1e-3)


def test_an_image_of_any_size_has_a_slope(encoder):
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (encoder.images(images) @ encoder.texts(["a"])[0])[0].backward()
    assert images.grad[0].abs().max() > 0 and images.grad[1].abs().max() == 0


def test_a_text_longer_than_the_context_is_cut(encoder):
    long = encoder.texts(["a " * 500])
    assert encoder.length == 8 and long.isfinite().all()


def test_weights_are_in_the_precision_asked_for_and_embeddings_in_float32(folder, encoder):
    other = TextImageEncoder.from_pretrained(str(folder), dtype=torch.bfloat16)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert other.model.dtype == torch.bfloat16 and other.images(images).dtype == torch.float32
    assert (other.images(images) * encoder.images(images)).sum(dim=1).min() > 0.99


def test_what_is_no_such_model_is_one_sentence(folder, tmp_path):
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    Dinov2Model(Dinov2Config(**tiny)).save_pretrained(tmp_path / "images only")
    with pytest.raises(BlindspotError, match="There is no encoder folder"):
        TextImageEncoder.from_pretrained(str(tmp_path / "nowhere"))
    with pytest.raises(BlindspotError, match="does not embed texts and images in one space: choose CLIP"):
        TextImageEncoder.from_pretrained(str(tmp_path / "images only"))
    bare = shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*", "vocab*", "merges*"))
    with pytest.raises(BlindspotError, match=r"The tokenizer of .*bare (cannot be loaded|knows no words)"):
        TextImageEncoder.from_pretrained(str(bare))
    (bare / "model.safetensors").unlink()
    with pytest.raises(BlindspotError, match=r"The encoder in .*bare cannot be loaded"):
        TextImageEncoder.from_pretrained(str(bare))
