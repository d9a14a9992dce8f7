"""Heat maps of a concept over images: patch codes to a translucent overlay that a page lays over the thumbnail."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from engine.figures.palette import HEAT_SCALE, sample

SIDE = 32
"""Pixels of one tile; the browser scales it to the thumbnail."""


def heat_rgba(heat: np.ndarray, peak: float, side: int = SIDE) -> np.ndarray:
    """Colour one heat map.

    Parameters
    ----------
    heat : float array [h, w]
        Patch codes, >= 0.
    peak
        The code drawn at full strength; larger values are clipped. One peak for all of a concept's images keeps them
        comparable.
    side
        Output size in pixels.

    Returns
    -------
    uint8 array [side, side, 4]; transparent where the concept does not fire.
    """
    share = np.clip(np.asarray(heat, np.float32) / peak, 0, 1) if peak > 0 else np.zeros_like(heat, np.float32)
    smooth = Image.fromarray(share, mode="F").resize((side, side), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), 0.0, 1.0)
    rgba = np.empty((side, side, 4), np.uint8)
    rgba[..., :3] = np.round(sample(HEAT_SCALE, share) * 255)
    rgba[..., 3] = np.round(share**0.6 * 255)
    return rgba


def heat_sheet(heats: list[np.ndarray], peak: float) -> str:
    """Return one PNG with all tiles in a column, as a ``data:`` URI; empty string for no tiles."""
    if not heats:
        return ""
    column = np.concatenate([heat_rgba(heat, peak) for heat in heats], axis=0)
    buffer = io.BytesIO()
    Image.fromarray(column, mode="RGBA").save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
