"""A diffusion prior in pixel space: an ADM network of OpenAI's guided-diffusion, with its learned variance."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.adm_files import NOISES, open_adm
from engine.priors.adm_unet import ADMUNet
from engine.priors.base import DiffusionPrior, frozen
from engine.priors.labels import class_label
from engine.priors.schedule import Schedule


class ADMPrior(DiffusionPrior):
    """The images of an ADM network, of one class if it is conditional.

    Parameters
    ----------
    unet
        The network.
    noise
        Its noise schedule, one of `engine.priors.adm_files.NOISES`, over 1000 levels.
    label
        The class to draw, for a class-conditional network, which has no class for "any".
    eta
        Noise of a reverse step, see `DiffusionPrior`.

    Raises
    ------
    BlindspotError
        If a class is missing, out of range, or given to a network without classes.
    """

    def __init__(self, unet: ADMUNet, noise: str = "linear", label: int | None = None, eta: float = 1.0):
        from diffusers import DDPMScheduler

        config = unet.config
        scheduler = DDPMScheduler(
            beta_schedule=NOISES[noise],
            variance_type="learned_range" if config.learned_variance else "fixed_small",
            timestep_spacing="linspace",
        )
        size = config.image_size
        super().__init__(Schedule.from_scheduler(scheduler), (3, size, size), size, unet.device, unet.dtype, eta)
        self.unet = frozen(unet)
        self.label = class_label(label, config.classes, "ADM network")
        if config.classes is not None and label is None:
            raise BlindspotError(f"This ADM network draws one of {config.classes} classes: say which by `label`.")

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        label: int | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        eta: float = 1.0,
    ) -> ADMPrior:
        """Open a folder that `python -m precompute convert-adm` wrote.

        Raises
        ------
        BlindspotError
            If it is missing or damaged, or the class does not fit.
        """
        return cls(*open_adm(folder, device, dtype), label, eta)

    def network(self, x_t: Tensor, t: int) -> Tensor:
        """The predicted noise and the variance's place, [B, 3 or 6, H, W], for x_t [B, 3, H, W] at level t."""
        rows = len(x_t)
        levels = torch.full((rows,), t, device=self.device)
        labels = None if self.label is None else torch.full((rows,), self.label, device=self.device)
        return self.unet(x_t, levels, labels)

    def decode(self, z: Tensor) -> Tensor:
        """[-1, 1] to images [B, 3, H, W] in [0, 1]."""
        return (z / 2 + 0.5).clamp(0, 1)
