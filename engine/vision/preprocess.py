"""From files to what a backbone sees: read, resize or crop, normalise. The only place that does any of it."""

from __future__ import annotations

import importlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Condition
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from engine.errors import BlindspotError
from engine.vision.spec import EncoderSpec

MAX_PIXELS = 64_000_000
IN_FLIGHT = 32_000_000
"""Pixels that all threads together decode at a time; a larger image is decoded alone."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "ICO", "PCX", "DIB")
"""What Pillow may read, so that no image is handed to another program, as PostScript is to Ghostscript."""
PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
"""Formats that an installed plugin adds to Pillow: its module and its package."""
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
DEPTHS = (8, 10, 12, 16, 24, 31)
"""Bits per pixel that grey images come in; a file that does not say has the smallest that holds its values."""
BAND_PIXELS = 1_000_000
"""Larger images are resized in bands of rows of this many pixels."""
LONG = 16
"""Images this many times as long as wide are cropped before they are resized."""

PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
# load_image has a limit of its own.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


class ImageError(BlindspotError):
    """An image that cannot be used.

    Parameters
    ----------
    message
        The sentence for the user.
    kind
        A few words by which such images are counted.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class PixelBudget:
    """Lets threads hold at most so many pixels together; whoever wants more than all waits to be alone."""

    def __init__(self, pixels: int) -> None:
        self.free = self.size = pixels
        self._changed = Condition()

    @contextmanager
    def share(self, pixels: int) -> Iterator[None]:
        """Wait for `pixels`, hold them, and give them back."""
        taken = min(pixels, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self._changed:
                self.free += taken
                self._changed.notify_all()


_BUDGET = PixelBudget(IN_FLIGHT)


@lru_cache(maxsize=1)
def image_formats() -> tuple[str, ...]:
    """The formats that are read here: `FORMATS`, and those of the plugins that are installed."""
    Image.init()
    for name, (module, _) in PLUGINS.items():
        try:
            plugin = importlib.import_module(module)
            if name == "HEIF":
                plugin.register_heif_opener()
        except Exception:  # a plugin that does not fit this Pillow is as good as none
            continue
    return tuple(name for name in (*FORMATS, *PLUGINS) if name in Image.OPEN)


def sniff_format(head: bytes) -> str | None:
    """The image format that a file's first 64 bytes tell, also one that is not read here; None for anything else."""
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in range(8, min(int.from_bytes(head[:4], "big"), len(head)), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"} else None
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    if head[:2] == b"BM":
        return "BMP" if head[6:10] == bytes(4) else None
    starts = {
        b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"II*\0": "TIFF",
        b"MM\0*": "TIFF", b"\xff\x0a": "JXL", b"\0\0\0\x0cJXL ": "JXL", b"\0\0\0\x0cjP  ": "JPEG2000",
        b"\xff\x4f\xff\x51": "JPEG2000", b"qoif": "QOI", b"%!PS": "PostScript", b"%PDF": "PDF", b"8BPS": "Photoshop",
    }  # fmt: skip
    return next((name for start, name in starts.items() if head.startswith(start)), None)


@contextmanager
def decoded_image(path: str | Path | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """`load_image` for threads: all images that are in use at a time have at most `IN_FLIGHT` pixels together."""
    name = getattr(path, "name", "the uploaded file") if hasattr(path, "read") else str(path)
    if isinstance(path, str | Path):
        _check_file(Path(path), name)
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    with _explained(path, name, max_pixels):
        opened = Image.open(path, formats=_formats_of(path))
    with opened:
        _check_size(opened, name, max_pixels)
        with _BUDGET.share(opened.width * opened.height):
            with _explained(path, name, max_pixels):
                # Read before loading, which forgets it.
                deep = ";16" in str(opened.tile)
                opened.load()
                _check_size(opened, name, max_pixels)
                image = _to_rgb(opened, name)
                if deep and opened.mode not in DEEP_MODES and np.asarray(image).max() < 16:
                    raise ImageError(
                        f"The image {name} has 16 bits per channel and its values end below 4096, so that it would be "
                        "black; save it with 8 bits.",
                        "range of values not known",
                    )
            yield image


def load_image(path: str | Path | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image as upright 8-bit RGB, with transparency laid over white.

    Grey images of more than 8 bits are scaled by the smallest usual depth that holds their values, floats in 0..1 by
    255.

    Parameters
    ----------
    path
        File, or an open binary file such as an upload.
    max_pixels
        Largest width x height that is decoded.

    Raises
    ------
    ImageError
        When the file is missing, is not a regular file or an image, is damaged or too large, is of a format that is
        not read, or has values of which nobody can say what is white.
    """
    with decoded_image(path, max_pixels=max_pixels) as image:
        return image


def _check_file(path: Path, name: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise ImageError(f"The image {name} cannot be opened: permission denied.", "no permission") from error
        raise ImageError(f"There is no image at {name}; check the path.", "missing") from error
    if not stat.S_ISREG(mode):
        raise ImageError(f"{name} is not a file but a folder, pipe or device.", "not a file")


def _formats_of(path: str | Path | BinaryIO) -> tuple[str, ...]:
    """TGA has no signature: only the ending tells."""
    name = str(getattr(path, "name", path))
    return (*image_formats(), *(("TGA",) if name.lower().endswith(".tga") else ()))


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"The image {name} has {image.width} x {image.height} pixels, more than the limit of {max_pixels:,}; "
            "reduce it first, or raise limits.max_pixels.",
            "too many pixels",
        )


@contextmanager
def _explained(path: str | Path | BinaryIO, name: str, max_pixels: int) -> Iterator[None]:
    """Say in one sentence why an image was not read."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"The image {name} has more pixels than the limit of {max_pixels}; reduce it first, or raise "
            "limits.max_pixels.",
            "too many pixels",
        ) from error
    except MemoryError as error:
        raise ImageError(f"The image {name} does not fit into memory; reduce it first.", "too large") from error
    except PermissionError as error:
        raise ImageError(f"The image {name} cannot be opened: permission denied.", "no permission") from error
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        if isinstance(error, ValueError) and "MAX_TEXT" in str(error):
            raise ImageError(
                f"The image {name} carries more than {PngImagePlugin.MAX_TEXT_MEMORY >> 20} MB of text; save it again "
                "without its metadata.",
                "too much text",
            ) from error
        kind = _format_in(path)
        if kind is None or kind in image_formats():
            raise ImageError(
                f"The file {name} cannot be read as an image; it is damaged or of another kind.", "damaged"
            ) from error
        raise unread_format(name, kind) from error


def unread_format(name: str, kind: str) -> ImageError:
    """What to say of an image of a format that is not read here."""
    shown = "HEIC" if kind == "HEIF" else kind
    remedy = f"install {PLUGINS[kind][1]}, or save it as JPEG" if kind in PLUGINS else "save it as JPEG or PNG"
    return ImageError(f"The image {name} is {shown}, which is not read here; {remedy}.", f"{shown} not read")


def _format_in(path: str | Path | BinaryIO) -> str | None:
    try:
        if isinstance(path, str | Path):
            with open(path, "rb") as handle:
                return sniff_format(handle.read(64))
        path.seek(0)
        return sniff_format(path.read(64))
    except (OSError, ValueError):
        return None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Upright 8-bit RGB, in a copy."""
    deep = image.mode in DEEP_MODES
    # Pillow scales PGM and JPEG 2000 to 16 bits by the depth that the file states.
    stated = 16 if image.format in ("PPM", "JPEG2000") and image.mode != "F" else 8
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # orientation that cannot be read is none
        image = image.copy()
    if deep:
        image = Image.fromarray(_eight_bits(np.asarray(image), name, stated))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        flat = Image.new("RGB", image.size)
        rows = max(1, BAND_PIXELS // max(1, image.width))
        for top in range(0, image.height, rows):
            layer = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
            layer = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            flat.paste(layer.convert("RGB"), (0, top))
        return flat
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, name: str, bits: int) -> np.ndarray:
    """Grey values of any depth as 8 bits; `bits` is the least depth that they can have."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and np.isfinite([low, high]).all() and low >= -0.01 and high <= 1.01:
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    depth = next((depth for depth in DEPTHS if depth >= bits and high < 2**depth), 0) if low >= 0 else 0
    if not depth or (high / 2 ** (depth - 8) < 16 and (depth > bits or values.dtype.kind == "f")):
        raise ImageError(
            f"The image {name} has values from {low:g} to {high:g}, which does not tell what is black and white; save "
            "it with 8 or 16 bits.",
            "range of values not known",
        )
    if values.dtype.kind == "f":
        return np.rint(values * 0.5 ** (depth - 8)).clip(0, 255).astype(np.uint8)
    return (values.astype(np.uint32) >> (depth - 8)).astype(np.uint8)


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
    if spec is not None:
        return torch.cat([_fit_image(image, spec) for image in images])
    tensors = [_pixels(image) for image in images]
    if len({image.size for image in images}) > 1:
        side = min(min(image.size) for image in images)
        tensors = [_resample(tensor, (side, side), "bicubic") for tensor in tensors]
    return torch.cat(tensors)


def _pixels(image: Image.Image) -> Tensor:
    # Not by torch, whose operations start threads of their own in every thread that decodes.
    array = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0)


def _fit_image(image: Image.Image, spec: EncoderSpec) -> Tensor:
    """`fit` of one image, without ever holding all of a large one as floats; the result is the same to the bit.

    With `eight_bits` Pillow resizes it, whose result differs by the rounding to 8 bits.
    """
    size = _scaled_size(image.height, image.width, spec)
    if spec.eight_bits and max(image.size) <= LONG * min(image.size):
        resample = Image.Resampling.BILINEAR if spec.interpolation == "bilinear" else Image.Resampling.BICUBIC
        resized = image if size == (image.height, image.width) else image.resize(size[::-1], resample)
        side = spec.image_size
        left, top = (resized.width - side) // 2, (resized.height - side) // 2
        return _pixels(resized.crop((left, top, left + side, top + side)))
    if max(image.size) > LONG * min(image.size) and spec.resize == "crop":
        return _fit_long(image, spec, size)
    if image.width * image.height <= BAND_PIXELS or size == (image.height, image.width):
        return fit(_pixels(image), spec)
    # Rows do not mix when the width is changed, which is what torch does first.
    rows = max(1, BAND_PIXELS // image.width)
    bands = []
    for top in range(0, image.height, rows):
        band = _pixels(image.crop((0, top, image.width, min(top + rows, image.height))))
        bands.append(_interpolate(band, (band.shape[-2], size[1]), spec.interpolation))
    scaled = _interpolate(torch.cat(bands, dim=2), size, spec.interpolation).clamp(0, 1)
    return _centre(scaled, spec.image_size)


def _fit_long(image: Image.Image, spec: EncoderSpec, size: tuple[int, int]) -> Tensor:
    """`fit` of one image, up to rounding, that scales only the part of it that is left after the crop."""
    side, taps = spec.image_size, []
    for length, scaled in ((image.height, size[0]), (image.width, size[1])):
        taps.append(_taps(length, scaled, (scaled - side) // 2, side, spec.interpolation))
    (rows, top), (columns, left) = taps
    part = _pixels(image.crop((left, top, left + columns.shape[1], top + rows.shape[1])))
    return (rows @ part @ columns.T).clamp(0, 1)


def _taps(length: int, scaled: int, start: int, count: int, interpolation: str) -> tuple[Tensor, int]:
    """Weights `[count, pixels]` of the pixels from the returned one on, for outputs `start` to `start + count`."""
    scale = length / scaled
    stretch, reach = max(scale, 1.0), 2 if interpolation == "bicubic" else 1
    centres = (np.arange(start, start + count) + 0.5) * scale
    first = max(0, int(centres[0] - reach * stretch))
    last = min(length, int(centres[-1] + reach * stretch) + 2)
    distance = np.abs((np.arange(first, last) + 0.5 - centres[:, None]) / stretch)
    if interpolation == "bicubic":  # a = -0.5, as Pillow's and torch's with antialias
        inner = (1.5 * distance - 2.5) * distance**2 + 1
        outer = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = np.where(distance < 1, inner, np.where(distance < 2, outer, 0))
    else:
        weights = np.maximum(1 - distance, 0)
    return torch.from_numpy((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)), first


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
    return _centre(_resample(images, _scaled_size(height, width, spec), spec.interpolation), side)


def _scaled_size(height: int, width: int, spec: EncoderSpec) -> tuple[int, int]:
    """Height and width before the crop."""
    side = spec.image_size
    if spec.resize == "square" or (height, width) == (side, side):
        return side, side
    scaled, shorter = round(side / spec.crop_fraction), min(height, width)
    if spec.resize == "square-crop":
        return scaled, scaled
    return max(side, int(scaled * height / shorter)), max(side, int(scaled * width / shorter))


def _centre(images: Tensor, side: int) -> Tensor:
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]


def _resample(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Antialiased like Pillow's, clipped to [0, 1] because bicubic overshoots."""
    if tuple(images.shape[-2:]) == size:
        return images
    return _interpolate(images, size, interpolation).clamp(0, 1)


def _interpolate(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    return F.interpolate(images, size=size, mode=interpolation, antialias=True, align_corners=False)
