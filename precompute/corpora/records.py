"""What is known of the images of a source, and their lists in the folder of a stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from glob import glob
from pathlib import Path

from engine.files import read_json, write_json

MANIFEST, SKIPPED = "images.json", "skipped.json"
PROVENANCE = ("url", "licence")
"""Fields of a record that are left out of the list where they are not known."""


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
    url: str | None = None
    """The address it comes from, where that is known."""
    licence: str | None = None


@dataclass(frozen=True)
class SkippedImage:
    """One image that was left out."""

    file: str
    stem: str
    reason: str
    kind: str = "damaged"
    """The reason in a few words, by which images are counted."""


def write_manifest(folder: Path, images: list[ImageRecord], skipped: list[SkippedImage]) -> dict[str, int]:
    """Write the images of a source into its stage's folder; returns the stage's summary."""
    # Paths inside the folder are stored relative to it, so that a work directory can be moved.
    inside = (image.path.relative_to(folder) if image.path.is_relative_to(folder) else image.path for image in images)
    rows = [asdict(image) | {"path": path.as_posix()} for image, path in zip(images, inside, strict=True)]
    rows = [{name: value for name, value in row.items() if name not in PROVENANCE or value} for row in rows]
    write_json(folder / MANIFEST, rows)
    write_json(folder / SKIPPED, [asdict(one) for one in skipped])
    return {"images": len(images), "skipped": len(skipped)}


def read_manifest(folder: Path) -> list[ImageRecord]:
    """The images of a source, in order."""
    images = [ImageRecord(**row) for row in read_json(folder / MANIFEST)]
    return [replace(image, path=folder / image.path) for image in images]


def read_skipped(folder: Path) -> list[SkippedImage]:
    """The images of a source that were left out, and the files that might have been some."""
    return [SkippedImage(**row) for row in read_json(folder / SKIPPED)]


def dataset_files(where: str) -> list[str]:
    """The files of a local data set: a folder, a file, or those that a pattern finds, in order."""
    return sorted(glob(where)) if "*" in where else [where]
