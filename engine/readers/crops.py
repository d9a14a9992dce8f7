"""Pictures that readers look at: whole images, and alpha-masked crops that keep only where a concept is.

Heat maps laid over an image mislead a reader, which describes the object and not the marked region; with all else
removed it describes the region ("Conceptual Blindspots in Generative Image Models", appendix F.2).
"""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float
from PIL import Image

SIDE = 224
"""Pixels to which the longer side of a small picture is enlarged."""
GREY = (128, 128, 128)
"""What stands where an image was removed; transparency itself is dropped by some endpoints."""
FULL_AT = 0.5
"""Share of the strongest code from which a place is kept entirely."""
SEEN = 0.1
"""Opacity from which a place is part of the crop."""
MARGIN = 0.05
"""Of the image's side, around the crop."""


def whole(picture: Image.Image) -> bytes:
    """An image as PNG, enlarged if it is small."""
    return _png(picture.convert("RGB"))


def masked_crop(picture: Image.Image, heat: Float[np.ndarray, "rows columns"], crop: float | None = None) -> bytes:
    """Keep of an image only where a concept is, cut to its bounding box, as PNG.

    Parameters
    ----------
    picture
        RGB, of any size.
    heat
        The concept's codes over the patches.
    crop
        For encoders that see the centre: the share of the shorter side; None for those that squeeze the whole image.
    """
    picture = picture.convert("RGB")
    opacity = np.asarray(Image.new("L", picture.size).convert("F")).copy()
    left, top, right, bottom = _seen(picture.size, crop)
    peak = float(np.max(heat, initial=0.0))
    if peak > 0:
        small = Image.fromarray(np.clip(np.asarray(heat, np.float32) / (FULL_AT * peak), 0, 1))
        large = small.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        opacity[top:bottom, left:right] = np.asarray(large)
    mask = Image.fromarray((255 * opacity).round().astype(np.uint8))
    kept = Image.composite(picture, Image.new("RGB", picture.size, GREY), mask)
    rows, columns = (np.flatnonzero((opacity > SEEN).any(axis=axis)) for axis in (1, 0))
    if len(rows):
        pad = round(MARGIN * max(picture.size))
        kept = kept.crop((
            max(columns[0] - pad, 0), max(rows[0] - pad, 0),
            min(columns[-1] + 1 + pad, picture.width), min(rows[-1] + 1 + pad, picture.height),
        ))  # fmt: skip
    return _png(kept)


def _seen(size: tuple[int, int], crop: float | None) -> tuple[int, int, int, int]:
    """What the encoder saw of an image: left, top, right, bottom."""
    if crop is None:
        return 0, 0, *size
    side = max(1, round(min(size) * crop))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def _png(picture: Image.Image) -> bytes:
    if (longer := max(picture.size)) < SIDE:
        width, height = (max(1, round(side * SIDE / longer)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
