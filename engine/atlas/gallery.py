"""Adds drawn images to an atlas that is already there, all or nothing, by way of its writer.

The new atlas shares the old one's files (hard links), so that a large one is not copied, and replaces it when it is
complete.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from PIL import Image

from engine.atlas import schema
from engine.atlas.checksums import manifest
from engine.atlas.reader import Atlas
from engine.atlas.writer import AtlasWriter
from engine.errors import BlindspotError

QUALITY = 92


def add_to_gallery(path: Path, rows: pd.DataFrame, picture: Callable[[int, int], Image.Image]) -> None:
    """Put images drawn for concepts into the atlas at `path`; other concepts keep those they have.

    Parameters
    ----------
    rows
        The columns of table ``gallery``, one row per image; a concept's ranks are 0, 1, 2 ...
    picture
        (concept, rank) to the image.

    Raises
    ------
    BlindspotError
        If the atlas's files are not those of its header, or it cannot be written.
    """
    atlas = Atlas.open(Path(path).resolve())
    _require_whole(atlas)
    before = atlas.gallery()
    replaced = before["concept"].isin(rows["concept"])
    with AtlasWriter(atlas.path) as writer:
        _share(atlas.path, writer.folder, {schema.HEADER, schema.table_file("gallery"), *_files(before[replaced])})
        for concept, rank in rows[["concept", "rank"]].itertuples(index=False):
            writer.add_file(schema.gallery_file(concept, rank), _webp(picture(concept, rank)))
        together = pd.concat([before[~replaced], rows]) if not replaced.all() else rows
        writer.write_table("gallery", together.sort_values(["concept", "rank"]))
        writer.finish(atlas.info)


def _files(rows: pd.DataFrame) -> Iterator[str]:
    return (schema.gallery_file(concept, rank) for concept, rank in rows[["concept", "rank"]].itertuples(index=False))


def _require_whole(atlas: Atlas) -> None:
    """Raise `BlindspotError` if a file is not the header's: new checksums would hide that."""
    present = manifest(atlas.path)
    wrong = sorted(rel for rel in present.keys() | atlas.info.files if present.get(rel) != atlas.info.files.get(rel))
    if wrong:
        raise BlindspotError(
            f"{wrong[0]} of {atlas.path} is not what its header says: check it with `python -m precompute verify`."
        )


def _share(old: Path, new: Path, without: set[str]) -> None:
    """Link all files of a folder into another, but for some; where the disk knows no links, copy them."""
    for path in old.rglob("*"):
        rel = path.relative_to(old)
        if path.is_file() and rel.as_posix() not in without:
            (new / rel).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, new / rel)
            except OSError:
                shutil.copy2(path, new / rel)


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
