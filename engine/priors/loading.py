"""From what a recipe or an atlas says of a prior to the prior: the one place that knows all kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.errors import BlindspotError
from engine.priors.adm import ADMPrior
from engine.priors.base import DiffusionPrior, open_pipeline
from engine.priors.dit import DiTPrior
from engine.priors.latent import LatentPrior
from engine.priors.pixel import PixelPrior
from engine.priors.spec import PriorSpec

__all__ = ["KINDS", "check_prior", "load_prior", "open_pipeline"]

KINDS: dict[str, type[DiffusionPrior]] = {"latent": LatentPrior, "pixel": PixelPrior, "dit": DiTPrior, "adm": ADMPrior}


def load_prior(
    spec: PriorSpec | str | Path,
    kind: str = "latent",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    eta: float | None = None,
    **fields: Any,
) -> DiffusionPrior:
    """Open the prior of a recipe or an atlas.

    Parameters
    ----------
    spec
        The prior; or its folder or hub id, with its `kind` and the other `fields` of a `PriorSpec`.
    device, dtype
        Where the network runs, and in which precision.
    eta
        Noise of a reverse step, see `DiffusionPrior`; None: that of the spec's scheduler, or else 1, Algorithm 1's.

    Raises
    ------
    BlindspotError
        For an unknown kind or scheduler, a pipeline that is missing or of another kind, a class or prompt that does not
        fit.
    """
    if not isinstance(spec, PriorSpec):
        spec = replace(PriorSpec.from_dict({"id": str(spec), "kind": kind}), **fields)
    return _kind_of(spec).from_pretrained(spec, device, dtype, eta)


def check_prior(spec: PriorSpec) -> None:
    """Raise `BlindspotError` for what configs alone show to be wrong; of an id they are fetched, but no weights."""
    _kind_of(spec).check(spec)


def _kind_of(spec: PriorSpec) -> type[DiffusionPrior]:
    """The class of a prior, which takes all that the spec asks of it."""
    prior = KINDS[spec.kind]
    for name in ("prompt", "label", "scheduler"):
        if getattr(spec, name) not in (None, "") and name not in prior.options:
            raise BlindspotError(
                f"The {spec.kind} prior {spec.id} takes no {name}: leave it out, or choose another kind."
            )
    return prior
