"""Encoders over real `transformers` models with random weights, saved to and loaded from folders."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from engine.errors import BlindspotError
from engine.vision.encoder import Encoder, Tokens
from engine.vision.spec import EncoderConfig

SALIENCY = Path(__file__).parents[4] / "shared" / "reference" / "dinov2-vits14-saliency"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SIZE = {"d2": 56, "d2r": 64, "d3": 64, "vit": 64, "convnext": 64, "d3convnext": 64}
GRID = {"d2": (4, 4), "d2r": (8, 8), "d3": (4, 4), "vit": (4, 4), "convnext": (2, 2), "d3convnext": (2, 2)}
PREFIX = {"d2": 1, "d2r": 5, "d3": 5, "vit": 1, "convnext": 0, "d3convnext": 1}
TRANSFORMERS = ["d2", "d2r", "d3", "vit"]


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    models = {
        "d2": lambda: Dinov2Model(Dinov2Config(**SMALL, image_size=56, patch_size=14)),
        "d2r": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, image_size=64, patch_size=8)),
        "d3": lambda: DINOv3ViTModel(
            DINOv3ViTConfig(**SMALL, intermediate_size=64, image_size=64, patch_size=16, num_register_tokens=4)
        ),
        "vit": lambda: ViTModel(ViTConfig(**SMALL, intermediate_size=64, image_size=64, patch_size=16)),
        "convnext": lambda: ConvNextModel(ConvNextConfig(**STAGES)),
        "d3convnext": lambda: DINOv3ConvNextModel(DINOv3ConvNextConfig(**STAGES)),
    }
    return models[name]().eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    for name in SIZE:
        build(name).save_pretrained(root / name)
        settings = {"size": {"height": SIZE[name], "width": SIZE[name]}, "resample": 3, "image_mean": [0.5] * 3}
        (root / name / "preprocessor_config.json").write_text(json.dumps(settings))
    return {name: root / name for name in SIZE}


@pytest.mark.parametrize("name", SIZE)
def test_tokens_are_the_models_own(folders: dict[str, Path], name: str) -> None:
    encoder = Encoder.from_pretrained(EncoderConfig(str(folders[name])))
    images = torch.rand(2, 3, SIZE[name], SIZE[name])
    pixels = (images - 0.5) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        theirs = build(name)(pixels).last_hidden_state
        tokens = encoder(images)
    if theirs.ndim == 4:
        theirs = theirs.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens.flat(), theirs)
    spec = encoder.spec
    assert (spec.grid, spec.prefix_tokens, spec.dim) == (GRID[name], PREFIX[name], 32)
    assert spec.patch == SIZE[name] // GRID[name][0]
    assert tokens.patches.shape == (2, *GRID[name], 32)
    assert tokens.prefix.shape == (2, PREFIX[name], 32)
    assert spec.tokens == theirs.shape[1]


def test_flat_puts_the_prefix_first_and_patches_row_by_row() -> None:
    tokens = Tokens(patches=torch.arange(2.0, 8).view(1, 2, 3, 1), prefix=torch.arange(2.0).view(1, 2, 1))
    assert tokens.flat().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_last_layer_is_the_output_and_middle_layers_are_normed(folders: dict[str, Path], name: str) -> None:
    images = torch.rand(1, 3, SIZE[name], SIZE[name])
    last = Encoder.from_pretrained(EncoderConfig(str(folders[name])))(images).flat()
    for layer in (-1, 2):
        torch.testing.assert_close(
            Encoder.from_pretrained(EncoderConfig(str(folders[name]), layer=layer))(images).flat(), last
        )
    middle = Encoder.from_pretrained(EncoderConfig(str(folders[name]), layer=1))(images).flat()
    assert not torch.allclose(middle, last)
    torch.testing.assert_close(middle.mean(dim=-1), torch.zeros_like(middle[..., 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["convnext", "d3convnext"])
def test_stages_of_a_convnet_are_feature_maps(folders: dict[str, Path], name: str) -> None:
    encoder = Encoder.from_pretrained(EncoderConfig(str(folders[name]), layer=3))
    assert (encoder.spec.grid, encoder.spec.dim, encoder.spec.prefix_tokens) == ((4, 4), 24, 0)
    images = torch.rand(1, 3, 64, 64)
    tokens = encoder(images)
    assert tokens.patches.shape == (1, 4, 4, 24)
    assert tokens.flat().shape == (1, 16, 24)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_other_image_sizes_interpolate_positions(folders: dict[str, Path], name: str) -> None:
    size = 2 * SIZE[name]
    encoder = Encoder.from_pretrained(EncoderConfig(str(folders[name]), image_size=size))
    assert encoder.spec.grid == (2 * GRID[name][0], 2 * GRID[name][1])
    assert encoder(torch.rand(1, 3, 30, 50)).patches.shape == (1, *encoder.spec.grid, 32)


def test_gradient_reaches_the_images_but_not_the_weights(folders: dict[str, Path]) -> None:
    encoder = Encoder.from_pretrained(EncoderConfig(str(folders["d2r"])))
    images = torch.rand(1, 3, 80, 80, requires_grad=True)
    encoder(images).patches.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert not encoder.backbone.training


def test_half_precision_backbone_returns_float32(folders: dict[str, Path]) -> None:
    images = torch.rand(1, 3, 64, 64)
    exact = Encoder.from_pretrained(EncoderConfig(str(folders["d2r"])))(images).flat()
    rounded = Encoder.from_pretrained(EncoderConfig(str(folders["d2r"]), dtype="bfloat16"))(images).flat()
    assert rounded.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.99


def test_without_settings_the_config_gives_the_size(tmp_path: Path) -> None:
    build("d2r").save_pretrained(tmp_path)
    spec = Encoder.from_pretrained(EncoderConfig(str(tmp_path), resize="crop")).spec
    assert (spec.image_size, spec.resize, spec.mean) == (64, "crop", (0.485, 0.456, 0.406))


def test_bad_sources_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BlindspotError, match=r"no config\.json"):
        Encoder.from_pretrained(EncoderConfig(str(tmp_path)))
    with pytest.raises(BlindspotError, match="There is no encoder folder"):
        Encoder.from_pretrained(EncoderConfig(str(tmp_path / "nowhere")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BlindspotError, match="neither a folder here nor a model that the Hugging Face hub gives us"):
        Encoder.from_pretrained(EncoderConfig("nobody/no-such-encoder"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(BlindspotError, match="cannot be loaded"):
        Encoder.from_pretrained(EncoderConfig(str(tmp_path)))


def test_bad_options_are_one_sentence(folders: dict[str, Path]) -> None:
    with pytest.raises(BlindspotError, match="layers 0 to 2, so there is no layer 7"):
        Encoder.from_pretrained(EncoderConfig(str(folders["d2r"]), layer=7))
    with pytest.raises(BlindspotError, match=r"not a multiple of the patch size 8 .* use 104"):
        Encoder.from_pretrained(EncoderConfig(str(folders["d2r"]), image_size=101))


def test_weights_of_another_model_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders["d2r"] / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folders["vit"] / "model.safetensors").read_bytes())
    with pytest.raises(BlindspotError, match="do not fit its config"):
        Encoder.from_pretrained(EncoderConfig(str(tmp_path)))


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(**SMALL, intermediate_size=32, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(BlindspotError, match="does not encode images"):
        Encoder.from_pretrained(EncoderConfig(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.skipif(not SALIENCY.is_dir(), reason="the reference DINOv2 weights are not on this machine")
def test_real_dinov2_weights() -> None:
    encoder = Encoder.from_pretrained(EncoderConfig(str(SALIENCY)))
    spec = encoder.spec
    assert (spec.image_size, spec.grid, spec.prefix_tokens, spec.dim, spec.resize) == (224, (16, 16), 1, 384, "crop")
    y, x = torch.meshgrid(torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij")
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.04).float().expand(1, 3, -1, -1)
    with torch.no_grad():
        patches = encoder(disc).patches[0]
    similarity = torch.nn.functional.cosine_similarity
    centre, corner = patches[7, 7], patches[0, 0]
    assert similarity(centre, patches[8, 8], dim=0) > similarity(centre, corner, dim=0) + 0.1


def test_a_hook_reads_an_inner_block_of_a_convolutional_backbone(folders: dict[str, Path]) -> None:
    stage = Encoder.from_pretrained(EncoderConfig(str(folders["d3convnext"]), layer=3))
    block = Encoder.from_pretrained(EncoderConfig(str(folders["d3convnext"]), hook="model.stages.2.layers.0"))
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    found = block(images)
    torch.testing.assert_close(found.patches, stage(images).patches)
    assert found.patches.shape == (2, *block.spec.grid, 24) and block.spec.grid == (4, 4)
    assert block.spec.prefix_tokens == 0 and block.spec.hook == "model.stages.2.layers.0"
    found.patches.sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_hook_reads_a_transformer_block_before_the_norm(folders: dict[str, Path]) -> None:
    encoder = Encoder.from_pretrained(EncoderConfig(str(folders["d2r"]), hook="encoder.layer.0"))
    normed = Encoder.from_pretrained(EncoderConfig(str(folders["d2r"]), layer=1))
    images = torch.rand(2, 3, 64, 64)
    found, expected = encoder(images).flat(), normed(images).flat()
    torch.testing.assert_close(encoder.backbone.layernorm(found), expected)


def test_a_hook_that_is_not_there_is_one_sentence(folders: dict[str, Path]) -> None:
    with pytest.raises(BlindspotError, match=r"no module 'stages\.9'; name one of its blocks, for example \w"):
        Encoder.from_pretrained(EncoderConfig(str(folders["d3convnext"]), hook="stages.9"))
    with pytest.raises(BlindspotError, match="at a layer and a hook at once"):
        Encoder.from_pretrained(EncoderConfig(str(folders["d2"]), layer=1, hook="encoder.layer.0"))
