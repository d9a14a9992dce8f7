"""The generators' eyes and hands: an AutoencoderTiny that packs 64x64 pictures into 16x16x4 latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional as F

from precompute.tabletop.dataset import Pictures
from precompute.tabletop.loop import Budget, device, half, optimise

__all__ = ["BUDGET", "build", "latents", "peak_signal_to_noise", "train"]

BUDGET = Budget(steps=2500, batch=24, learning_rate=2e-3, averaging=0.998)
LATENT_NOISE = 0.05
"""Standard deviation of the noise added to latents while training, so that a sampler's small errors stay small."""


def build(width: int = 40) -> AutoencoderTiny:
    """An untrained f4 autoencoder with 4 latent channels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 3,
        decoder_block_out_channels=(width,) * 3,
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=4,
        scaling_factor=1.0,
    )


def train(pictures: Pictures, checkpoint: Path, budget: Budget = BUDGET) -> AutoencoderTiny:
    """Train on L1 of pixels and of their horizontal and vertical differences, then set the latents' scale.

    Afterwards `config.scaling_factor` makes latents of unit standard deviation, as diffusers' pipelines expect.
    """
    torch.manual_seed(0)
    model = build().to(device(), memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        images = pictures.batch(torch.randint(len(pictures.pixels), (budget.batch,), generator=generator)) * 2 - 1
        images = images.to(device(), memory_format=torch.channels_last)
        with half():
            packed = model.encoder(images)
            packed = packed + LATENT_NOISE * torch.randn(packed.shape, generator=generator).to(packed)
            drawn = model.decoder(packed)
        return _difference(drawn.float(), images)

    model = optimise(model, loss, budget, checkpoint).to("cpu", memory_format=torch.contiguous_format)
    spread = latents(model, pictures.batch(torch.arange(0, len(pictures.pixels), max(1, len(pictures.pixels) // 512))))
    model.register_to_config(scaling_factor=round(1 / spread.std().item(), 4))
    return model.eval()


def _difference(drawn: Tensor, images: Tensor) -> Tensor:
    edges = sum(F.l1_loss(drawn.diff(dim=axis), images.diff(dim=axis)) for axis in (-1, -2))
    return F.l1_loss(drawn, images) + edges + F.mse_loss(drawn, images)


@torch.no_grad()
def latents(model: AutoencoderTiny, images: Tensor, batch: int = 64) -> Tensor:
    """Scaled latents `[n, 4, h/4, w/4]` of images `[n, 3, h, w]` in 0..1."""
    packed = [model.encode(part * 2 - 1).latents for part in images.split(batch)]
    return torch.cat(packed) * model.config.scaling_factor


@torch.no_grad()
def peak_signal_to_noise(model: AutoencoderTiny, images: Tensor) -> float:
    """Mean over images of the reconstruction's PSNR, in dB."""
    drawn = model.decode(model.encode(images * 2 - 1).latents).sample.clamp(-1, 1) / 2 + 0.5
    return (-10 * (drawn - images).square().mean(dim=(1, 2, 3)).log10()).mean().item()
