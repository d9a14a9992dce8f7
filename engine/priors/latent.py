"""A diffusion prior in the latent space of an autoencoder: Stable Diffusion, SDXL, their turbo and LCM descendants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.autoencoder import decode_latents, frozen_autoencoder
from engine.priors.base import DiffusionPrior, frozen
from engine.priors.prompting import encode_prompt
from engine.priors.schedule import Schedule


class LatentPrior(DiffusionPrior):
    """The images a text-to-image pipeline draws for one fixed prompt; the empty prompt makes it unconditional.

    Parameters
    ----------
    pipeline
        A `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or `LatentConsistencyModelPipeline` with an
        `AutoencoderKL` or `AutoencoderTiny`. The prompt is encoded once, so the text encoder is not kept.
    prompt
        The prompt; "" for the unconditional prior.
    guidance
        Classifier-free guidance scale; 1 leaves it off and halves the cost. Without effect on the empty prompt.
    eta
        Noise of a reverse step, see `DiffusionPrior`.

    Raises
    ------
    BlindspotError
        If the network does not denoise the autoencoder's latents.
    """

    def __init__(self, pipeline: Any, prompt: str = "", guidance: float = 1.0, eta: float = 1.0):
        unet, vae = pipeline.unet, pipeline.vae
        if unet.config.in_channels != vae.config.latent_channels:
            raise BlindspotError(
                f"A latent prior needs a network of its autoencoder's {vae.config.latent_channels} channels, this one "
                f"has {unet.config.in_channels}: inpainting and upscaling models cannot serve."
            )
        size = int(unet.config.sample_size)
        super().__init__(
            Schedule.from_scheduler(pipeline.scheduler),
            (int(unet.config.in_channels), size, size),
            size * pipeline.vae_scale_factor,
            unet.device,
            unet.dtype,
            eta,
        )
        self.unet, self.vae = frozen(unet), frozen_autoencoder(vae)
        self.guidance = guidance
        self.context, self.added, self.embedded_guidance = encode_prompt(pipeline, prompt, guidance, self.image_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        prompt: str = "",
        guidance: float = 1.0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> LatentPrior:
        """Load a pipeline from a folder or hub id (safetensors only).

        Raises
        ------
        BlindspotError
            If there is no such pipeline, or it is of another kind.
        """
        from engine.priors.loading import load_prior

        return load_prior(path, "latent", prompt, guidance, device, dtype)

    def network(self, x_t: Tensor, t: int) -> Tensor:
        """The network's raw output for x_t [B, C, h, w] at level t, after classifier-free guidance."""
        copies, rows = len(self.context), len(x_t)
        output = self.unet(
            torch.cat([x_t] * copies),
            torch.tensor(t, device=self.device),
            encoder_hidden_states=self.context.repeat_interleave(rows, dim=0),
            timestep_cond=None if self.embedded_guidance is None else self.embedded_guidance.expand(rows, -1),
            added_cond_kwargs={key: value.repeat_interleave(rows, dim=0) for key, value in self.added.items()},
        ).sample
        if copies == 1:
            return output
        empty, prompted = output.chunk(2)
        return empty + self.guidance * (prompted - empty)

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in [0, 1]."""
        return decode_latents(self.vae, z)
