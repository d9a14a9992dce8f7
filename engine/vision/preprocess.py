"""From files to what a backbone sees: read, resize or crop, normalise. The only place that does any of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from engine.errors import BlindspotError
from engine.vision.spec import EncoderSpec

MAX_PIXELS = 64_000_000
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def load_image(path: str | Path | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image as upright 8-bit RGB, with transparency laid over white.

    Parameters
    ----------
    path
        File, or an open binary file such as an upload.
    max_pixels
        Largest width x height that is decoded.

    Raises
    ------
    BlindspotError
        When the file is missing, is not an image, is damaged or is too large.
    """
    name = getattr(path, "name", "the uploaded file") if hasattr(path, "read") else str(path)
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise BlindspotError(
                    f"The image {name} has {image.width} x {image.height} pixels, more than the limit of {max_pixels}; "
                    "reduce it first."
                )
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise BlindspotError(f"There is no image at {name}; check the path.") from error
    except BlindspotError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        raise BlindspotError(
            f"The file {name} cannot be read as an image; it is damaged or of another kind."
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; 16-bit grey is scaled rather than clipped."""
    if image.mode in SIXTEEN_BIT_MODES:
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def to_tensor(images: Sequence[Image.Image], spec: EncoderSpec | None = None) -> Float[Tensor, "n 3 height width"]:
    """Stack images into one batch in [0, 1].

    Parameters
    ----------
    images
        RGB images.
    spec
        When given, every image is resized or cropped on its own, as the encoder wants it; best for a corpus of mixed
        shapes. When absent and the sizes differ, all are squeezed to a square as wide as the smallest shorter side.
    """
    if not images:
        raise BlindspotError("There are no images to encode; give at least one.")
    tensors = [_pixels(image) for image in images]
    if spec is not None:
        tensors = [fit(tensor, spec) for tensor in tensors]
    elif len({image.size for image in images}) > 1:
        side = min(min(image.size) for image in images)
        tensors = [_resample(tensor, (side, side), "bicubic") for tensor in tensors]
    return torch.cat(tensors)


def _pixels(image: Image.Image) -> Tensor:
    array = np.asarray(image.convert("RGB")).copy()
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).float().div(255)


def prepare(images: Float[Tensor, "n 3 height width"], spec: EncoderSpec) -> Float[Tensor, "n 3 size size"]:
    """Return what the backbone sees of images in [0, 1]: `fit`, then minus mean, over standard deviation."""
    mean = images.new_tensor(spec.mean).view(3, 1, 1)
    std = images.new_tensor(spec.std).view(3, 1, 1)
    return (fit(images, spec) - mean) / std


def fit(images: Float[Tensor, "n 3 height width"], spec: EncoderSpec) -> Float[Tensor, "n 3 size size"]:
    """Resize or crop images in [0, 1] to the encoder's square; differentiable.

    Images that already have the encoder's size pass through untouched, also under `crop`, so that what a sampler
    optimises is exactly what the backbone sees.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise BlindspotError(f"Images must have the shape [batch, 3, height, width], not {list(images.shape)}.")
    height, width = images.shape[-2:]
    side = spec.image_size
    if (height, width) == (side, side):
        return images
    if spec.resize == "square":
        return _resample(images, (side, side), spec.interpolation)
    shorter = round(side / spec.crop_fraction)
    factor = shorter / min(height, width)
    scaled = _resample(images, (max(side, int(height * factor)), max(side, int(width * factor))), spec.interpolation)
    top, left = (scaled.shape[-2] - side) // 2, (scaled.shape[-1] - side) // 2
    return scaled[..., top : top + side, left : left + side]


def _resample(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Antialiased like Pillow's, clipped to [0, 1] because bicubic overshoots."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode=interpolation, antialias=True, align_corners=False).clamp(0, 1)
