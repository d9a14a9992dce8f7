"""Where the heavy work runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from engine.errors import BlindspotError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
"""What a recipe may ask for."""
Dtype = Literal["float32", "bfloat16", "float16"]
"""Precision of a model's weights."""
DrawingDtype = Literal["float32", "bfloat16"]
"""Precision of the models that draw; in float16 the small gradients of a score would vanish."""


DEVICE, DTYPE = "BLINDSPOT_DEVICE", "BLINDSPOT_DTYPE"
"""Variables of the environment that say where and how precisely the app draws."""


class Placement(NamedTuple):
    """Where images are drawn, and how precisely."""

    device: str
    """"cpu", "cuda" or "cuda:1"."""
    dtype: Dtype
    """A `DrawingDtype`."""


def drawing_placement(device: str | None = None, dtype: str | None = None) -> Placement:
    """Return where to draw: a device and a precision that are there.

    Parameters
    ----------
    device
        "cpu", "cuda" or "cuda:1"; None or "auto" is the first CUDA GPU, or else the CPU.
    dtype
        A `DrawingDtype`; None is float32. On a CPU nothing else is drawn in.

    Raises
    ------
    BlindspotError
        If this machine has no such device, it cannot draw, or not in that precision.
    """
    import torch

    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, dtype = str(pick_device(device).type), dtype or "float32"
    if kind not in ("cpu", "cuda"):
        raise BlindspotError(f"Images are drawn on a CPU or a CUDA GPU, not on {device}: use device auto, cpu or cuda.")
    if dtype not in get_args(DrawingDtype):
        raise BlindspotError(
            f"Images are drawn in {' or '.join(get_args(DrawingDtype))}, not in {dtype}, where the small gradients of "
            "a score would vanish."
        )
    if kind == "cpu" and dtype != "float32":
        raise BlindspotError(f"Images are drawn in float32 on a CPU, not in {dtype}: leave out the dtype.")
    return Placement(device, cast(Dtype, dtype))


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
    kind, colon, number = wanted.partition(":")
    if kind not in present or (colon and not number.isdecimal()) or int(number or 0) >= present[kind]:
        raise BlindspotError(f"The device {wanted} is asked for, which this machine lacks; use device: auto.")
    return torch.device(wanted)
