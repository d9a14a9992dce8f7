"""The small pictures the app shows: one WebP per image, numbered within its source."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.files import write_whole
from engine.vision.preprocess import load_image
from precompute.plan import Progress
from precompute.stages.manifest import Picture

QUALITY = 90


def shrink(pictures: Sequence[Picture], size: int, max_pixels: int, folder: Path, progress: Progress) -> dict[str, int]:
    """Write the thumbnail of every image; those that are there already are kept.

    Args:
        pictures: the images of a source.
        size: longest side in pixels; smaller images keep their size.
        max_pixels: as when the images were gathered.
        folder: the stage's folder.
        progress: called with the images done and all images.
    """

    def write(number: int) -> None:
        path = thumb_path(folder, number)
        if path.exists():
            return
        image = load_image(pictures[number].path, max_pixels=max_pixels)
        image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3)
        write_whole(path, lambda partial: image.save(partial, format="WEBP", quality=QUALITY, method=4))

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(write, range(len(pictures))), start=1):
            progress(done, len(pictures))
    return {"images": len(pictures)}


def thumb_path(folder: Path, number: int) -> Path:
    """Where the thumbnail of a source's image is."""
    return folder / f"{number // 1000:04d}" / f"{number:07d}.webp"
