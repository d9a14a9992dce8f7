"""The small images the app shows: one WebP per image, numbered within its source."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.atlas.schema import thumb_file
from engine.atlas.writer import AtlasWriter
from engine.files import write_whole
from engine.vision.preprocess import decoded_image
from precompute.runner import Context, Progress, Stage, fingerprint_fields
from precompute.stages.corpus import ImageRecord, first_images, images_of

QUALITY, METHOD = 90, 2
"""Of WebP; higher methods take up to four times as long for 2 % fewer bytes."""


class ThumbnailsStage(Stage):
    """`thumbs/S`: the thumbnails of a source; those that its encoding made already are taken from there."""

    def __init__(self, context: Context, source: str) -> None:
        params = fingerprint_fields(context.recipe.thumbs)
        super().__init__(context, f"thumbs/{source}", params, (context.images_stage(source),))
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the thumbnails."""
        recipe, size = self.context.recipe, self.context.recipe.thumbs.size
        made = thumbnails_folder(self.context.folder(f"encode/{self.source}"), size)
        images = images_of(self.context, self.source)
        return write_thumbnails(images, size, recipe.limits.max_pixels, folder, progress, made)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Copy all thumbnails, numbered by the images' global ids."""
        for name, start in first_images(context).items():
            for number in range(len(images_of(context, name))):
                writer.add_file(thumb_file(start + number), thumb_path(context.folder(f"thumbs/{name}"), number))


def write_thumbnails(
    images: Sequence[ImageRecord],
    size: int,
    max_pixels: int,
    folder: Path,
    progress: Progress,
    made: Path | None = None,
) -> dict[str, int]:
    """Write the thumbnail of every image; those that are there already are kept.

    Parameters
    ----------
    images : the images of a source.
    size : longest side in pixels; smaller images keep their size.
    max_pixels : as when the images were gathered.
    folder : the stage's folder.
    progress : called with the images done and all images.
    made : a folder of thumbnails of this size; the images that have one there are not decoded.
    """

    def write(number: int) -> None:
        path = thumb_path(folder, number)
        if path.exists():
            return
        if made is not None and thumb_path(made, number).exists():
            write_whole(path, lambda partial: link_or_copy(thumb_path(made, number), partial))
        else:
            with decoded_image(images[number].path, max_pixels=max_pixels) as image:
                save_thumbnail(image, size, folder, number)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(write, range(len(images))), start=1):
            progress(done, len(images))
    return {"images": len(images)}


def save_thumbnail(image: Image.Image, size: int, folder: Path, number: int) -> None:
    """Shrink an image, in place, to a longest side of `size` pixels and write it as the thumbnail `number`."""
    image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3)
    write_whole(
        thumb_path(folder, number),
        lambda partial: image.save(partial, format="WEBP", quality=QUALITY, method=METHOD),
    )


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the disk has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def thumbnails_folder(encoded: Path, size: int) -> Path:
    """Where an encode stage keeps the thumbnails of that size."""
    return encoded / f"thumbs-{size}"


def thumb_path(folder: Path, number: int) -> Path:
    """Where the thumbnail of a source's image is."""
    return folder / f"{number // 1000:04d}" / f"{number:07d}.webp"
