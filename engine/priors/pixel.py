"""A diffusion prior in pixel space: a diffusers `UNet2DModel` and its scheduler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior, Images, States, frozen
from engine.priors.schedule import Schedule
from engine.priors.spec import PriorSpec


class PixelPrior(DiffusionPrior):
    """An unconditional denoiser of RGB images in [-1, 1].

    Parameters
    ----------
    unet
        A diffusers `UNet2DModel` with 3 input channels, and 3 or (learned variance) 6 output channels.
    scheduler
        The diffusers scheduler it was trained with; only its constants are used.
    eta
        Noise of a reverse step, see `DiffusionPrior`.

    Raises
    ------
    BlindspotError
        If the network does not denoise RGB images.
    """

    pipelines = ("DDPMPipeline", "DDIMPipeline")
    options = ("scheduler",)

    def __init__(self, unet: Any, scheduler: Any, eta: float = 1.0):
        channels = unet.config.in_channels
        if channels != 3:
            raise BlindspotError(f"A pixel prior needs a network of 3 input channels, this one has {channels}.")
        size = int(unet.config.sample_size)
        super().__init__(Schedule.from_scheduler(scheduler), (3, size, size), size, unet.device, unet.dtype, eta)
        self.unet = frozen(unet)

    @classmethod
    def from_pipeline(cls, pipeline: Any, spec: PriorSpec, eta: float) -> PixelPrior:
        """Make the prior of a pipeline."""
        return cls(pipeline.unet, pipeline.scheduler, eta)

    def network(self, x_t: States, t: int) -> Tensor:
        """The network's raw output at level t."""
        return self.unet(x_t, torch.tensor(t, device=self.device)).sample

    def decode(self, z: States) -> Images:
        """[-1, 1] to images in [0, 1]."""
        return (z / 2 + 0.5).clamp(0, 1)
