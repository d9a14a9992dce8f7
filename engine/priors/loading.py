"""From a folder or hub id to a prior: the one place that opens a diffusers pipeline for sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.errors import BlindspotError
from engine.hub import find_model
from engine.priors.adm import ADMPrior
from engine.priors.base import DiffusionPrior
from engine.priors.dit import DiTPrior
from engine.priors.latent import LatentPrior
from engine.priors.pixel import PixelPrior
from engine.priors.schedulers import named_scheduler

KINDS: dict[str, tuple[str, ...]] = {
    "latent": ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline"),
    "pixel": ("DDPMPipeline", "DDIMPipeline"),
    "dit": ("DiTPipeline",),
    "adm": (),
}
"""Kinds of priors, and the pipelines that serve as one; an ADM network is none of diffusers'."""


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

    missing = f"There is no diffusion pipeline at {path}: give a pipeline folder or a hub id."
    found = find_model(path, missing, needs_owner=True)
    local = isinstance(found, Path)
    if isinstance(found, Path) and not (found / "model_index.json").is_file():
        raise BlindspotError(f"{path} is not a diffusion pipeline: it has no model_index.json.")
    try:
        parts = DiffusionPipeline.load_config(str(found), local_files_only=local)
        unused = {"safety_checker": None} if "safety_checker" in parts else {}
        pipeline = DiffusionPipeline.from_pretrained(str(found), use_safetensors=True, local_files_only=local, **unused)
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
    *,
    label: int | None = None,
    scheduler: str | None = None,
    eta: float | None = None,
) -> DiffusionPrior:
    """The prior that an atlas or recipe names by kind.

    Parameters
    ----------
    path
        Pipeline folder or hub id; for "adm" the folder that `python -m precompute convert-adm` wrote.
    kind
        "latent" for a text-to-image pipeline, "pixel" for an unconditional one (`DDPMPipeline`, `DDIMPipeline`), "dit"
        for a `DiTPipeline`, "adm" for a guided-diffusion network.
    prompt
        For "latent"; "" for its unconditional prior.
    guidance
        Classifier-free guidance scale of a prompt or of a DiT's class; 1 leaves it off.
    label
        The class that a "dit" (None: all of them) or a class-conditional "adm" draws.
    scheduler
        A class of `engine.priors.schedule.GUIDABLE` that replaces the pipeline's own.
    eta
        Noise of a reverse step, see `DiffusionPrior`; None: that of the named scheduler, or else 1, Algorithm 1's.

    Raises
    ------
    BlindspotError
        For an unknown kind or scheduler, a pipeline that is missing or of another kind, a class or prompt that does not
        fit.
    """
    if kind not in KINDS:
        raise BlindspotError(f"Unknown kind of prior {kind!r}: choose one of {', '.join(KINDS)}.")
    _refuse_unheard(path, kind, prompt, label, scheduler)
    if kind == "adm":
        return ADMPrior.from_folder(path, label, device, dtype, 1.0 if eta is None else eta)
    pipeline = open_pipeline(path, device, dtype)
    if not any(parent.__name__ in KINDS[kind] for parent in type(pipeline).__mro__):
        raise BlindspotError(
            f"{path} holds a {type(pipeline).__name__}, but a {kind} prior needs a {' or '.join(KINDS[kind])}."
        )
    noise = 1.0
    if scheduler is not None:
        pipeline.scheduler, noise = named_scheduler(scheduler, pipeline.scheduler)
    noise = noise if eta is None else eta
    if kind == "latent":
        return LatentPrior(pipeline, prompt, guidance, noise)
    if kind == "dit":
        return DiTPrior(pipeline, label, guidance, noise)
    return PixelPrior(pipeline.unet, pipeline.scheduler, noise)


def _refuse_unheard(path: str | Path, kind: str, prompt: str, label: int | None, scheduler: str | None) -> None:
    """Refuse what a kind of prior could only ignore."""
    given = {"prompt": bool(prompt), "label": label is not None, "scheduler": scheduler is not None}
    heard = {
        "latent": ("prompt", "scheduler"),
        "dit": ("label", "scheduler"),
        "pixel": ("scheduler",),
        "adm": ("label",),
    }
    for name in given:
        if given[name] and name not in heard[kind]:
            raise BlindspotError(f"The {kind} prior {path} takes no {name}: leave it out, or choose another kind.")
