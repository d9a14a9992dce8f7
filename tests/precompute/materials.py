"""Small real inputs for the tests of precompute: a random encoder and pipeline, folders of drawn images, a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (240, 210, 60)}
SHAPES = ("ball", "box")


def save_encoder(folder: Path) -> Path:
    """A random DINOv2-with-registers: 28 px, patch 7, 2 registers, width 16, 2 layers."""
    import torch
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        image_size=28, patch_size=7, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=2
    )
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    return folder


def save_pipeline(folder: Path) -> Path:
    """A random StableDiffusionPipeline that draws 16 x 16 pixels."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=0,
        eos_token_id=1,
    )
    tokenizer_folder = folder.with_name(folder.name + "-tokenizer")
    tokenizer_folder.mkdir(parents=True)
    (tokenizer_folder / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (tokenizer_folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(tokenizer_folder / "vocab.json"), str(tokenizer_folder / "merges.txt"), model_max_length=40
    )
    blocks = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **blocks
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            **blocks,
        ),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def draw_image(number: int, size: tuple[int, int] = (40, 32)) -> tuple[Image.Image, str]:
    """A coloured ball or box on grey, and its caption."""
    rng = np.random.default_rng(number)
    colour, shape = list(COLOURS)[number % len(COLOURS)], SHAPES[number // len(COLOURS) % len(SHAPES)]
    image = Image.new("RGB", size, tuple(int(grey) for grey in rng.integers(90, 180, 3)))
    left, top = rng.integers(2, 12, 2)
    pen = ImageDraw.Draw(image)
    paint = pen.ellipse if shape == "ball" else pen.rectangle
    paint((int(left), int(top), int(left) + 18, int(top) + 16), fill=COLOURS[colour])
    return image, f"a {colour} {shape} number {number}"


def save_images(folder: Path, numbers: range, captions: str | None = "metadata.jsonl", shift: int = 0) -> Path:
    """Images `0007.png` ... of these numbers, with captions in that file (`.txt` for one per image)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in numbers:
        image, _ = draw_image(number + shift)
        caption = draw_image(number)[1]
        image.save(folder / f"{number:04d}.png")
        rows.append({"file_name": f"{number:04d}.png", "text": caption})
        if captions == ".txt":
            (folder / f"{number:04d}.txt").write_text(caption + "\n")
    if captions == "metadata.jsonl":
        (folder / captions).write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif captions and captions.endswith(".csv"):
        (folder / captions).write_text(
            "file_name,text\n" + "".join(f"{row['file_name']},{row['text']}\n" for row in rows)
        )
    return folder


def save_recipe(path: Path, **blocks: Any) -> Path:
    """A recipe with a tiny dictionary; `blocks` replace or add to its parts."""
    recipe: dict[str, Any] = {
        "name": "tiny",
        "encoder": {"id": "encoder", "batch": 5},
        "dictionary": {"concepts": 12, "sparsity": 3, "epochs": 2, "batch": 256},
        "layout": {"clusters": 3},
    }
    path.write_text(yaml.safe_dump(recipe | blocks, sort_keys=False))
    return path
