"""The demo's encoder: the first blocks of a published DINOv2, for pictures of 64 px.

Block and size were chosen by `python -m precompute benchmark encoders`, on scenes that nothing was fitted to.
Energies and guidance read no later block, so the later ones are not kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Dinov2Model

from engine.errors import BlindspotError
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD
from precompute.demo_world.optimisation import save_image_settings

BLOCKS = 8
IMAGE_SIZE = 112
"""Side in pixels that the backbone sees: 8 x 8 patches."""


def save_first_blocks(source: str | Path, out: Path, blocks: int = BLOCKS, image_size: int = IMAGE_SIZE) -> None:
    """Write the first `blocks` blocks of the DINOv2 in `source`, and its final layer norm, to `out` in float16.

    The last hidden state of what is written equals `layernorm(hidden_states[blocks])` of the source.

    Raises
    ------
    BlindspotError
        If the source has fewer blocks.
    """
    model = Dinov2Model.from_pretrained(source, dtype=torch.float16)
    if len(model.encoder.layer) < blocks:
        raise BlindspotError(f"The DINOv2 in {source} has {len(model.encoder.layer)} blocks; {blocks} were asked for.")
    model.encoder.layer = model.encoder.layer[:blocks]
    config = model.config
    config.num_hidden_layers = blocks
    config.stage_names = ["stem", *(f"stage{n}" for n in range(1, blocks + 1))]
    config.out_features, config.out_indices = [f"stage{blocks}"], [blocks]
    model.save_pretrained(out)
    save_image_settings(out, image_size, IMAGENET_MEAN, IMAGENET_STD)
