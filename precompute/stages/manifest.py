"""The images of one source as the other stages read them: where they are, what they are called, what they show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path

from engine.files import read_json, write_json
from precompute.context import Context

MANIFEST = "images.json"
SKIPPED = "skipped.json"


@dataclass(frozen=True)
class ImageRecord:
    """One usable image."""

    path: Path
    """Where its pixels are."""
    file: str
    """What the atlas calls it: the original's path, or its place in the work directory."""
    stem: str
    """Its path below the source's folder, without the suffix."""
    caption: str | None
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class SkippedImage:
    """One image that was left out."""

    file: str
    stem: str
    reason: str


def write_manifest(folder: Path, images: list[ImageRecord], skipped: list[SkippedImage]) -> dict[str, int]:
    """Write the images of a source into its stage's folder; returns the stage's summary."""
    # Paths inside the folder are stored relative to it, so that a work directory can be moved.
    inside = (image.path.relative_to(folder) if image.path.is_relative_to(folder) else image.path for image in images)
    rows = [asdict(image) | {"path": path.as_posix()} for image, path in zip(images, inside, strict=True)]
    write_json(folder / MANIFEST, rows)
    write_json(folder / SKIPPED, [asdict(one) for one in skipped])
    return {"images": len(images), "skipped": len(skipped)}


def read_manifest(folder: Path) -> list[ImageRecord]:
    """The images of a source, in order."""
    images = [ImageRecord(**row) for row in read_json(folder / MANIFEST)]
    return [replace(image, path=folder / image.path) for image in images]


def read_skipped(folder: Path) -> list[SkippedImage]:
    """The images of a source that were left out."""
    return [SkippedImage(**row) for row in read_json(folder / SKIPPED)]


def images_of(context: Context, source: str) -> list[ImageRecord]:
    """The images of a source, in order."""
    return read_manifest(context.folder(context.images_stage(source)))


def first_images(context: Context) -> dict[str, int]:
    """Per source the global id of its first image."""
    counts = [context.work.summary(context.images_stage(name))["images"] for name in context.sources]
    return dict(zip(context.sources, accumulate(counts, initial=0), strict=False))
