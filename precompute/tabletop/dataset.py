"""Rendered scenes in bulk, kept on disk so that every training reads the same pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from precompute.tabletop.scenes import Scene, draw

__all__ = ["IMAGE_SIZE", "Pictures", "rendered", "to_unit"]

IMAGE_SIZE = 64


@dataclass(frozen=True)
class Pictures:
    """Scenes and what they look like."""

    pixels: np.ndarray
    """uint8 `[n, 64, 64, 3]`."""
    scenes: list[Scene]

    @property
    def captions(self) -> list[str]:
        return [scene.caption for scene in self.scenes]

    def batch(self, indices: Tensor) -> Tensor:
        """float32 `[len(indices), 3, 64, 64]` in 0..1."""
        return to_unit(self.pixels[indices.numpy()])


def to_unit(pixels: np.ndarray) -> Tensor:
    """uint8 `[n, h, w, 3]` as float32 `[n, 3, h, w]` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div_(255)


def rendered(scenes: Sequence[Scene], name: str, folder: Path) -> Pictures:
    """The pictures of `scenes`, drawn by all cores the first time and read from `folder` afterwards."""
    pixels_file, truth_file = folder / f"{name}.npy", folder / f"{name}.json"
    truth = json.dumps([scene.to_dict() for scene in scenes])
    if not (truth_file.exists() and truth_file.read_text() == truth):
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            pixels = np.stack(list(pool.map(draw, scenes, chunksize=64)))
        np.save(pixels_file, pixels)
        truth_file.write_text(truth)
    return Pictures(np.load(pixels_file, mmap_mode="r"), list(scenes))
