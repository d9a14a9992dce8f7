"""The demo's encoder is a published DINOv2 as far as it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from engine.errors import BlindspotError
from engine.vision.encoder import Encoder
from precompute.demo_world.encoder import save_first_blocks
from precompute.demo_world.training import DemoTrainer, train_all

REFERENCE = Path(__file__).parents[4] / "shared/reference/dinov2-vits14-saliency"
DEMO = Path(__file__).parents[3] / "data/demo"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A small random DINOv2 of four blocks."""
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14)
    folder = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).half().save_pretrained(folder)
    return folder


def test_what_is_kept_gives_the_tokens_of_the_layer(whole, tmp_path):
    save_first_blocks(whole, tmp_path / "cut", blocks=3, image_size=28)
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    cut = Encoder.from_pretrained(str(tmp_path / "cut"), device="cpu")
    layer = Encoder.from_pretrained(str(whole), layer=3, image_size=28, resize="square", device="cpu")
    assert len(cut.backbone.encoder.layer) == 3 and cut.spec.grid == (2, 2)
    assert torch.equal(cut(images).flat(), layer(images).flat())


def test_more_blocks_than_there_are_is_one_sentence(whole, tmp_path):
    with pytest.raises(BlindspotError, match="has 4 blocks; 9 were asked for"):
        save_first_blocks(whole, tmp_path / "cut", blocks=9)
    assert not (tmp_path / "cut").exists()


def test_the_training_leaves_the_committed_blocks_alone_unless_a_dinov2_is_given(whole, tmp_path, capsys):
    DemoTrainer(tmp_path, tmp_path / "out").encoder()
    assert "--dinov2" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_a_wrong_folder_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(BlindspotError, match="nowhere is no folder of a transformers model"):
        train_all(tmp_path / "work", tmp_path / "out", dinov2=Path("nowhere"))
    assert not (tmp_path / "work").exists()


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference DINOv2 is not beside this checkout")
def test_the_demo_s_encoder_is_the_reference_at_layer_8():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    demo = Encoder.from_pretrained(str(DEMO / "dinov2"), device="cpu")
    reference = Encoder.from_pretrained(str(REFERENCE), layer=8, image_size=112, resize="square", device="cpu")
    assert demo.spec.tokens == 65 and torch.equal(demo(images).flat(), reference(images).flat())
