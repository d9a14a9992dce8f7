"""The images of one source as the other stages read them: where they are, what they are called, what they show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine.files import read_json, write_json

MANIFEST = "images.json"
SKIPPED = "skipped.json"


@dataclass(frozen=True)
class Picture:
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
class Skipped:
    """One image that was left out."""

    file: str
    stem: str
    reason: str


def write_manifest(folder: Path, pictures: list[Picture], skipped: list[Skipped]) -> dict[str, int]:
    """Write the images of a source into its stage's folder; returns the stage's summary."""
    rows = [asdict(picture) | {"path": _relative(picture.path, folder)} for picture in pictures]
    write_json(folder / MANIFEST, rows)
    write_json(folder / SKIPPED, [asdict(one) for one in skipped])
    return {"images": len(pictures), "skipped": len(skipped)}


def read_manifest(folder: Path) -> list[Picture]:
    """The images of a source, in order."""
    pictures = [Picture(**row) for row in read_json(folder / MANIFEST)]
    return [replace(picture, path=folder / picture.path) for picture in pictures]


def read_skipped(folder: Path) -> list[Skipped]:
    """The images of a source that were left out."""
    return [Skipped(**row) for row in read_json(folder / SKIPPED)]


def _relative(path: Path, folder: Path) -> str:
    """`path` from inside `folder` if it is there, so that a work directory can be moved."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
