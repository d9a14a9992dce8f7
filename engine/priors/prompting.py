"""What a text-to-image pipeline's network hears beside state and level, encoded once for a fixed prompt."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Condition(NamedTuple):
    """The conditioning of one prompt: a single row, or the empty prompt's and then the prompt's."""

    context: Tensor
    """[1 or 2, tokens, d], what cross-attention reads."""
    added: dict[str, Tensor]
    """For SDXL, pooled `text_embeds` [1 or 2, d'] and sizes `time_ids` [1 or 2, 6]; empty otherwise."""
    guidance: Tensor | None
    """[1, d''], the embedded guidance scale of a model distilled with it (LCM); None otherwise."""


@torch.no_grad()
def encode_prompt(pipeline: Any, prompt: str, guidance: float, image_size: int) -> Condition:
    """Encode a prompt for a `StableDiffusionPipeline`, `LatentConsistencyModelPipeline` or `StableDiffusionXLPipeline`.

    Parameters
    ----------
    pipeline
        Its text encoders are used here for the last time.
    prompt
        "" for what the model was trained to take as no prompt at all (zeros in SDXL).
    guidance
        Classifier-free guidance scale; 1 leaves it off. A model that was distilled with guidance is told the scale.
    image_size
        Side in pixels that an SDXL is told.
    """
    unet = pipeline.unet
    prompted, empty, *pooled = pipeline.encode_prompt(
        prompt=prompt, device=unet.device, num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    rows = [empty] if not prompt else [prompted]
    pooled = pooled if prompt else pooled[::-1]
    width = unet.config.get("time_cond_proj_dim")
    both = bool(prompt) and guidance != 1 and width is None
    rows = [empty, *rows] if both else rows
    added = {}
    if pooled:
        sizes = torch.tensor([[image_size, image_size, 0, 0, image_size, image_size]], device=unet.device)
        added["text_embeds"] = torch.cat(pooled[::-1] if both else pooled[:1])
        added["time_ids"] = sizes.to(unet.dtype).expand(len(rows), -1)
    embedded = None if width is None else guidance_embedding(guidance, width).to(unet.device, unet.dtype)
    return Condition(torch.cat(rows), added, embedded)


def guidance_embedding(guidance: float, width: int) -> Tensor:
    """Sinusoids [1, width] of 1000 (guidance - 1): sines, then cosines (guided distillation, arXiv 2210.03142)."""
    half = width // 2
    frequencies = 10_000.0 ** -(torch.arange(half, dtype=torch.float32) / (half - 1))
    angles = 1000 * (guidance - 1) * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]
