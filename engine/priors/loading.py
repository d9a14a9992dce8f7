"""From a folder or hub id to a prior: the one place that opens a diffusers pipeline for sampling."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior
from engine.priors.latent import LatentPrior
from engine.priors.pixel import PixelPrior

KINDS = ("latent", "pixel")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_pipeline(path: str | Path, device: str | torch.device, dtype: torch.dtype) -> Any:
    """A diffusers pipeline, frozen, without safety checker; weights only from safetensors, never from a pickle.

    Parameters
    ----------
    path
        A local pipeline folder (then no network is used) or a hub id.

    Raises
    ------
    BlindspotError
        If the folder or id does not hold a pipeline that diffusers can load.
    """
    from diffusers import DiffusionPipeline

    local = Path(path).is_dir()
    if not local and (isinstance(path, Path) or not HUB_ID.fullmatch(path)):
        raise BlindspotError(f"There is no diffusion pipeline at {path}: give a pipeline folder or a hub id.")
    if local and not (Path(path) / "model_index.json").is_file():
        raise BlindspotError(f"{path} is not a diffusion pipeline: it has no model_index.json.")
    try:
        parts = DiffusionPipeline.load_config(str(path), local_files_only=local)
        unused = {"safety_checker": None} if "safety_checker" in parts else {}
        pipeline = DiffusionPipeline.from_pretrained(str(path), use_safetensors=True, local_files_only=local, **unused)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BlindspotError(f"The diffusion pipeline {path} cannot be loaded: {reason}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


def load_prior(
    path: str | Path,
    kind: str = "latent",
    prompt: str = "",
    guidance: float = 1.0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusionPrior:
    """The prior that an atlas or recipe names by kind.

    Parameters
    ----------
    path
        Pipeline folder or hub id.
    kind
        "latent" for a `StableDiffusionPipeline`, "pixel" for an unconditional one (`DDPMPipeline`, `DDIMPipeline`).
    prompt, guidance
        Only for latent priors, see `LatentPrior`.

    Raises
    ------
    BlindspotError
        For an unknown kind, or a pipeline that is missing or of another kind.
    """
    if kind == "latent":
        return LatentPrior.from_pretrained(path, prompt, guidance, device, dtype)
    if kind != "pixel":
        raise BlindspotError(f"Unknown kind of prior {kind!r}: choose one of {', '.join(KINDS)}.")
    from diffusers import UNet2DModel

    pipeline = open_pipeline(path, device, dtype)
    if not isinstance(getattr(pipeline, "unet", None), UNet2DModel):
        raise BlindspotError(f"{path} holds a {type(pipeline).__name__}, but a pixel prior needs an UNet2DModel.")
    return PixelPrior(pipeline.unet, pipeline.scheduler)
