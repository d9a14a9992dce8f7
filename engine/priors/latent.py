"""A diffusion prior in the latent space of an autoencoder: any `StableDiffusionPipeline`, prompted or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior
from engine.priors.schedule import Schedule


class LatentPrior(DiffusionPrior):
    """The images a text-to-image pipeline draws for one fixed prompt; the empty prompt makes it unconditional.

    Parameters
    ----------
    pipeline
        A diffusers `StableDiffusionPipeline` with an `AutoencoderKL` or `AutoencoderTiny`. The prompt is encoded once,
        so the text encoder is not kept.
    prompt
        The prompt; "" for the unconditional prior.
    guidance
        Classifier-free guidance scale; 1 leaves it off and halves the cost.
    eta
        Noise of a reverse step, see `DiffusionPrior`.
    """

    def __init__(self, pipeline: Any, prompt: str = "", guidance: float = 1.0, eta: float = 1.0):
        unet, vae = pipeline.unet, pipeline.vae
        size = int(unet.config.sample_size)
        super().__init__(
            Schedule.from_scheduler(pipeline.scheduler),
            (int(unet.config.in_channels), size, size),
            size * pipeline.vae_scale_factor,
            unet.device,
            unet.dtype,
            eta,
        )
        self.unet, self.vae = unet.requires_grad_(False).eval(), vae.requires_grad_(False).eval()
        self.guidance = guidance
        with torch.no_grad():
            prompted, empty = pipeline.encode_prompt(prompt, self.device, 1, guidance != 1)
        self.context = prompted if guidance == 1 else torch.cat([empty, prompted])

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        prompt: str = "",
        guidance: float = 1.0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> LatentPrior:
        """Load a `StableDiffusionPipeline` from a folder or hub id (safetensors only).

        Raises
        ------
        BlindspotError
            If there is no such pipeline, or it is of another kind.
        """
        from diffusers import StableDiffusionPipeline

        from engine.priors.loading import open_pipeline

        pipeline = open_pipeline(path, device, dtype)
        if not isinstance(pipeline, StableDiffusionPipeline):
            raise BlindspotError(
                f"{path} holds a {type(pipeline).__name__}, but a latent prior needs a StableDiffusionPipeline."
            )
        return cls(pipeline, prompt, guidance)

    def network(self, x_t: Tensor, t: int) -> Tensor:
        """The network's raw output for x_t [B, C, h, w] at level t, after classifier-free guidance."""
        copies = len(self.context)
        context = self.context.repeat_interleave(len(x_t), dim=0)
        level = torch.tensor(t, device=self.device)
        output = self.unet(torch.cat([x_t] * copies), level, encoder_hidden_states=context).sample
        if copies == 1:
            return output
        empty, prompted = output.chunk(2)
        return empty + self.guidance * (prompted - empty)

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in [0, 1]; undoes the autoencoder's scale and shift."""
        config = self.vae.config
        latents = z / config.scaling_factor + (config.get("shift_factor") or 0.0)
        return (self.vae.decode(latents.to(self.vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)
