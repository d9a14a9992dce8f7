"""Captions beside images: metadata.jsonl or metadata.csv (Hugging Face imagefolder), captions.csv, .txt files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import BlindspotError

TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")
"""Looked for in this order; the first that is there is read, .txt files only if none is."""
FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path")
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence")


def read_captions(folder: Path, images: Iterable[str]) -> dict[str, str]:
    """The captions of a folder's images.

    Parameters
    ----------
    folder : the folder.
    images : paths of its images relative to it, with `/`.

    Returns
    -------
    dict
        Caption by relative path, for the images that have one.

    Raises
    ------
    BlindspotError
        If a table cannot be read, lacks a column, or names none of the images.
    """
    images = list(images)
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        return {image: text for image in images if (text := _beside(folder / image))}
    found = dict(_table_captions(table))
    known = {image: found[image] for image in images if found.get(image)}
    if found and images and not known:
        example = next(iter(found))
        raise BlindspotError(
            f"{table} names {len(found)} files, but none of the {len(images)} images in {folder} is among them "
            f"(for example '{example}'); its file names must be relative to the folder."
        )
    return known


def _beside(image: Path) -> str:
    """The text of the .txt file with the image's name, or an empty string."""
    try:
        return " ".join(image.with_suffix(".txt").read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return ""


def _table_captions(table: Path) -> Iterator[tuple[str, str]]:
    """File and caption of each row that has both; a second row of a file replaces the first."""
    columns: tuple[str, str] | None = None
    for number, row in _rows(table):
        if columns is None:
            columns = _column(row, FILE_COLUMNS, table), _column(row, CAPTION_COLUMNS, table)
        file, caption = row.get(columns[0]), row.get(columns[1])
        if isinstance(caption, list):
            caption = caption[0] if caption else None
        if not isinstance(file, str) or not isinstance(caption, str | None):
            raise BlindspotError(f"{table} line {number} must give '{columns[0]}' and '{columns[1]}' as text.")
        if caption and caption.strip():
            yield str(PurePosixPath(file.strip().replace("\\", "/"))), " ".join(caption.split())


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a table with their line numbers."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as handle:
            if table.suffix == ".csv":
                yield from enumerate(csv.DictReader(handle), start=2)
            else:
                for number, line in enumerate(handle, start=1):
                    if line.strip():
                        yield number, _object(line, number, table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BlindspotError(f"The captions in {table} cannot be read: {error}.") from None


def _object(line: str, number: int, table: Path) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise BlindspotError(f'{table} line {number} is not a JSON object such as {{"file_name": ..., "text": ...}}.')
    return row


def _column(row: Mapping[str, Any], names: tuple[str, ...], table: Path) -> str:
    """The first of `names` that the row has, in any letter case."""
    present = {key.strip().lower(): key for key in row if isinstance(key, str)}
    for name in names:
        if name in present:
            return present[name]
    has = ", ".join(present) or "none"
    raise BlindspotError(f"{table} has the columns {has}, but needs one of {', '.join(names)}.")
