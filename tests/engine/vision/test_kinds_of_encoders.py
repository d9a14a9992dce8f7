"""Which models of `transformers` are encoders here, over tiny ones, and what is said of the others."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from engine.errors import BlindspotError
from engine.vision.encoder import Encoder
from engine.vision.pretrained import ImageSettings, image_settings

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {"image_size": 64, "patch_size": 16, **SMALL}
TEXT = {
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    **SMALL,
}
BOTH = {"vision_config": VISION, "text_config": TEXT}
SWIN = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
LLAVA = {"vision_config": hf.CLIPVisionConfig(**VISION), "text_config": hf.LlamaConfig(num_key_value_heads=2, **TEXT)}
VIDEO = {"num_frames": 2, **VISION}
OBLONG, OBLONG_PATCH = VISION | {"image_size": [64, 32]}, VISION | {"patch_size": [16, 8]}
Make = Callable[[], hf.PreTrainedModel]

READ: dict[str, tuple[int, Make]] = {
    "SigLIP's tower": (0, lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**VISION))),
    "SigLIP": (0, lambda: hf.SiglipModel(hf.SiglipConfig(**BOTH))),
    "CLIP's tower": (1, lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**VISION))),
    "CLIP": (1, lambda: hf.CLIPModel(hf.CLIPConfig(**BOTH, projection_dim=8))),
    "AIMv2": (0, lambda: hf.Aimv2Model(hf.Aimv2Config(**BOTH, projection_dim=8))),
    "BLIP": (1, lambda: hf.BlipModel(hf.BlipConfig(**BOTH, projection_dim=8))),
    "I-JEPA": (0, lambda: hf.IJepaModel(hf.IJepaConfig(**VISION))),
    "BEiT": (1, lambda: hf.BeitModel(hf.BeitConfig(**VISION))),
    "DeiT": (2, lambda: hf.DeiTModel(hf.DeiTConfig(**VISION))),
    "classifier": (2, lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**VISION))),
    "patch as a pair": (1, lambda: hf.ViTModel(hf.ViTConfig(**VISION | {"patch_size": [16, 16]}))),
}
HIERA = {
    "image_size": [64, 64], "patch_size": [7, 7], "patch_stride": [4, 4], "patch_padding": [3, 3], "embed_dim": 16,
    "depths": [1, 1, 1], "num_heads": [1, 1, 1], "masked_unit_size": [4, 4],
    "masked_unit_attention": [True, False, False],
    "num_query_pool": 1, "query_stride": [2, 2],
}  # fmt: skip
CLIP_LIKE = {"vision_use_head": True, "num_patches": 16, "patch_size": 16, **SMALL}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
LAID_OUT: dict[str, tuple[int, int, int, Make]] = {
    "MAE": (1, 4, 16, lambda: hf.ViTMAEModel(hf.ViTMAEConfig(**VISION))),
    "SigLIP2 of any size": (0, 4, 16, lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**CLIP_LIKE))),
    "Swin": (0, 8, 32, lambda: hf.SwinModel(hf.SwinConfig(**SWIN))),
    "Hiera": (0, 8, 64, lambda: hf.HieraModel(hf.HieraConfig(**HIERA))),
    "ResNet": (0, 8, 16, lambda: hf.ResNetModel(hf.ResNetConfig(**STAGES))),
    "DINOv3": (5, 4, 16, lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(num_register_tokens=4, **VISION))),
}
"""Prefix, side of the grid and width of the tokens of 64 pixels."""
REFUSED: dict[str, tuple[str, Make]] = {
    "oblong images": ("does not encode images of 64 pixels", lambda: hf.ViTModel(hf.ViTConfig(**OBLONG))),
    "oblong patches": ("is not a square grid", lambda: hf.ViTModel(hf.ViTConfig(**OBLONG_PATCH))),
    "videos": ("does not encode images", lambda: hf.VideoMAEModel(hf.VideoMAEConfig(**VIDEO))),
    "LLaVA": ("has no vision tower that is known here", lambda: hf.LlavaModel(hf.LlavaConfig(**LLAVA))),
}


def saved(folder: Path, make: Make) -> str:
    torch.manual_seed(0)
    make().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", READ)
def test_tokens_before_the_patches_are_counted(tmp_path: Path, name: str) -> None:
    prefix, make = READ[name]
    encoder = Encoder.from_pretrained(saved(tmp_path, make), device="cpu")
    tokens = encoder(torch.rand(2, 3, 64, 64))
    assert tokens.prefix.shape == (2, prefix, 16) and tokens.patches.shape == (2, 4, 4, 16)
    assert (encoder.spec.prefix_tokens, encoder.spec.patch, encoder.spec.image_size) == (prefix, 16, 64)
    assert tokens.embedding().norm(dim=-1) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("model", "config"),
    [(hf.CLIPModel, hf.CLIPConfig), (hf.Aimv2Model, hf.Aimv2Config), (hf.SiglipModel, hf.SiglipConfig)],
)
def test_a_vision_tower_has_the_whole_models_weights(tmp_path: Path, model: type, config: type) -> None:
    make = lambda: model(config(**BOTH))  # noqa: E731
    encoder = Encoder.from_pretrained(saved(tmp_path, make), device="cpu")
    torch.manual_seed(0)
    images, whole = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)), make().eval()
    pixels = (images - torch.tensor(encoder.spec.mean).view(3, 1, 1)) / torch.tensor(encoder.spec.std).view(3, 1, 1)
    with torch.no_grad():
        theirs = whole.vision_model(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(encoder(images).flat(), theirs)


@pytest.mark.parametrize("name", [*READ, *LAID_OUT])
def test_a_token_lies_where_its_part_of_the_image_does(tmp_path: Path, name: str) -> None:
    prefix, side, dim, make = LAID_OUT.get(name, (READ.get(name, [0])[0], 4, 16, READ.get(name, [0, None])[1]))
    encoder = Encoder.from_pretrained(saved(tmp_path, make), device="cpu", image_size=64)
    assert encoder.spec.grid == (side, side) and (encoder.spec.prefix_tokens, encoder.spec.dim) == (prefix, dim)
    plain = torch.full((1, 3, 64, 64), 0.5)
    for row, column in ((0, side - 1), (side - 1, 1), (side // 2, 0)):
        changed, step = plain.clone(), 64 // side
        part = (slice(row * step, (row + 1) * step), slice(column * step, (column + 1) * step))
        changed[0, :, *part] = torch.rand(3, step, step, generator=torch.Generator().manual_seed(0))
        moved = (encoder(changed).patches - encoder(plain).patches).norm(dim=-1)[0]
        found = divmod(int(moved.argmax()), side)
        # A convolution's view overlaps its neighbours'.
        assert np.abs(np.subtract(found, (row, column))).max() <= (name == "ResNet")
        assert torch.equal(encoder(plain).flat(), encoder(plain).flat())


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_encoder_is_one_sentence(tmp_path: Path, name: str) -> None:
    words, make = REFUSED[name]
    with pytest.raises(BlindspotError, match=words) as caught:
        Encoder.from_pretrained(saved(tmp_path, make), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "vit_small_patch14_dinov2", "num_classes": 0, "pretrained_cfg": {"input_size": [3, 518, 518]}},
        {"model_type": "timm_wrapper", "architecture": "resnet18"},
        {"model_type": "timm_backbone", "backbone": "resnet18"},
    ],
)
def test_a_model_of_timm_is_one_sentence(tmp_path: Path, config: dict) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BlindspotError, match="is a model of timm, which is not read here"):
        Encoder.from_pretrained(str(tmp_path))


def test_no_code_of_a_model_is_run(tmp_path: Path) -> None:
    def with_code(folder: Path, **fields: str) -> None:
        folder.mkdir(exist_ok=True)
        config = folder / "config.json"
        known = json.loads(config.read_text()) if config.exists() else {}
        own = {"auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
        config.write_text(json.dumps(known | own | fields))
        (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass")

    with_code(tmp_path / "unknown", model_type="my_vit")
    with pytest.raises(BlindspotError, match="comes with code of its own, which is never run"):
        Encoder.from_pretrained(str(tmp_path / "unknown"))
    saved(tmp_path / "known", READ["DeiT"][1])
    with_code(tmp_path / "known")
    assert Encoder.from_pretrained(str(tmp_path / "known"), device="cpu").spec.prefix_tokens == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["[]", "3", "{", "null", '{"model_type": 5}', '{"model_type": []}', "[" * 9999, "\0", ""]
)
def test_a_config_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BlindspotError, match=r"The encoder in .* cannot be loaded"):
        Encoder.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("field", ["hidden_size", "patch_size", "num_attention_heads", "image_size", "hidden_act"])
@pytest.mark.parametrize("value", [-1, 0, "x", None, [], 3])
def test_odd_values_of_a_config_are_one_sentence(tmp_path: Path, field: str, value: object) -> None:
    saved(tmp_path, READ["patch as a pair"][1])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(BlindspotError) as caught:
        Encoder.from_pretrained(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_settings_may_lie_in_the_processors_file(tmp_path: Path) -> None:
    inner = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner, "processor_class": "x"}))
    assert image_settings(str(tmp_path), None) == ImageSettings(64, "square", "bilinear", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("shards", ["whole", "40KB"])
@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_weights_of_a_variant_alone_are_read(tmp_path: Path, variant: str, shards: str) -> None:
    torch.manual_seed(0)
    model = hf.ViTModel(hf.ViTConfig(**VISION)).eval()
    model.save_pretrained(tmp_path, variant=variant, max_shard_size="1GB" if shards == "whole" else shards)
    assert not (tmp_path / "model.safetensors").exists()
    found = Encoder.from_pretrained(str(tmp_path), device="cpu")
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.backbone.state_dict()[name], tensor)


def test_published_sizes_have_the_published_grids(tmp_path: Path) -> None:
    """DINOv2 /14 with registers at 224 px and DINOv3 /16 at 256 px: 261 tokens; ConvNeXt-L's stage 2: 768 x 16 x 16."""
    registers = {"num_register_tokens": 4}
    vit = hf.Dinov2WithRegistersConfig(image_size=518, patch_size=14, mlp_ratio=1, **registers, **SMALL)
    made = saved(tmp_path / "dinov2", lambda: hf.Dinov2WithRegistersModel(vit))
    spec = Encoder.from_pretrained(made, device="cpu", image_size=224).spec
    assert (spec.tokens, spec.grid, spec.prefix_tokens) == (261, (16, 16), 5)
    v3 = hf.DINOv3ViTConfig(image_size=224, patch_size=16, **registers, **SMALL)
    made = saved(tmp_path / "dinov3", lambda: hf.DINOv3ViTModel(v3))
    spec = Encoder.from_pretrained(made, device="cpu", image_size=256).spec
    assert (spec.tokens, spec.grid, spec.prefix_tokens) == (261, (16, 16), 5)
    large = hf.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 768, 8], depths=[1, 1, 1, 1])
    made = saved(tmp_path / "convnext", lambda: hf.DINOv3ConvNextModel(large))
    encoder = Encoder.from_pretrained(made, device="cpu", image_size=256, hook="model.stages.2.layers.0")
    assert (encoder.spec.grid, encoder.spec.dim, encoder.spec.prefix_tokens) == ((16, 16), 768, 0)
