"""Where the heavy work runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from engine.errors import BlindspotError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
"""What a recipe may ask for."""
Dtype = Literal["float32", "bfloat16", "float16"]
"""Precision of a model's weights."""


def pick_device(wanted: str = "auto") -> torch.device:
    """Return the device of that name: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises
    ------
    BlindspotError
        If this machine has no such device.
    """
    import torch

    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    kind, _, number = wanted.partition(":")
    if kind not in present or int(number or 0) >= present[kind]:
        raise BlindspotError(f"The device {wanted} is asked for, which this machine lacks; use device: auto.")
    return torch.device(wanted)
