"""Where the heavy work runs."""

from __future__ import annotations

import torch

from engine.errors import BlindspotError


def pick_device(wanted: str = "auto") -> torch.device:
    """The device a recipe asks for; `auto` takes a GPU if there is one.

    Raises
    ------
    BlindspotError
        If the device is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    if not present[wanted]:
        raise BlindspotError(f"The recipe asks for the device {wanted}, which this machine lacks; use device: auto.")
    return torch.device(wanted)
