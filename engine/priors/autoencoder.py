"""From latents to images: the half of a latent diffusion model that its autoencoder does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.priors.base import frozen


def frozen_autoencoder(vae: Any) -> Any:
    """A diffusers autoencoder, frozen; in float32 if it is one whose decoder overflows in float16 (SDXL's)."""
    if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
        vae = vae.float()
    return frozen(vae)


def decode_latents(vae: Any, z: Tensor) -> Tensor:
    """Latents [B, C, h, w] to images [B, 3, H, W] in [0, 1]; undoes the autoencoder's scale, shift and moments."""
    config = vae.config
    latents = z / config.scaling_factor + (config.get("shift_factor") or 0.0)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (z.new_tensor(config[key])[:, None, None] for key in ("latents_mean", "latents_std"))
        latents = latents * std + mean
    return (vae.decode(latents.to(vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)
