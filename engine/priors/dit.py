"""A diffusion transformer in latent space, of one ImageNet class or of all: any `DiTPipeline` (Peebles & Xie 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.priors.base import DiffusionPrior, Images, States, class_label, frozen
from engine.priors.latent import decode_latents, frozen_autoencoder
from engine.priors.schedule import Schedule
from engine.priors.spec import PriorSpec


class DiTPrior(DiffusionPrior):
    """The images of a DiT.

    Parameters
    ----------
    pipeline
        A diffusers `DiTPipeline`.
    label
        The class to draw; None for the null class, which stands for all of them.
    guidance
        Classifier-free guidance scale of a given class; 1 leaves it off and halves the cost.
    eta
        Noise of a reverse step, see `DiffusionPrior`.

    Raises
    ------
    BlindspotError
        If there is no such class.
    """

    pipelines = ("DiTPipeline",)
    options = ("label", "scheduler")

    def __init__(self, pipeline: Any, label: int | None = None, guidance: float = 1.0, eta: float = 1.0):
        transformer, vae = pipeline.transformer, pipeline.vae
        config = transformer.config
        channels, size = int(config.in_channels), int(config.sample_size)
        schedule = Schedule.from_scheduler(pipeline.scheduler)
        super().__init__(
            replace(schedule, learned_variance=config.out_channels == 2 * channels),
            (channels, size, size),
            size * 2 ** (len(vae.config.block_out_channels) - 1),
            transformer.device,
            transformer.dtype,
            eta,
        )
        self.transformer, self.vae = frozen(transformer), frozen_autoencoder(vae)
        self.guidance = guidance
        null = int(config.num_embeds_ada_norm)
        given = class_label(label, null, "DiT")
        self.labels = (null,) if given is None else (given,) if guidance == 1 else (null, given)

    @classmethod
    def from_pipeline(cls, pipeline: Any, spec: PriorSpec, eta: float) -> DiTPrior:
        """Make the prior of a pipeline's class."""
        return cls(pipeline, spec.label, spec.guidance, eta)

    def network(self, x_t: States, t: int) -> Tensor:
        """The transformer's output at level t, after classifier-free guidance.

        Guidance moves the predicted noise alone; a learned variance stays that of the given class.
        """
        copies, rows = len(self.labels), len(x_t)
        output = self.transformer(
            torch.cat([x_t] * copies),
            timestep=torch.full((copies * rows,), t, device=self.device),
            class_labels=torch.tensor(self.labels, device=self.device).repeat_interleave(rows),
        ).sample
        if copies == 1:
            return output
        null, given = output.chunk(2)
        channels = x_t.shape[1]
        noise = null[:, :channels] + self.guidance * (given[:, :channels] - null[:, :channels])
        return torch.cat([noise, given[:, channels:]], dim=1)

    def decode(self, z: States) -> Images:
        """Latents to images in [0, 1]."""
        return decode_latents(self.vae, z)
