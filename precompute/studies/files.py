"""A study on disk: its tables, a figure, a grid of images, and last `study.json`, which says where they come from.

OUT/table.csv        one row per strength, level, unit or ratio; further tables beside it
OUT/figure.html      and the plotly library that it uses
OUT/grid.png         with its origin inside
OUT/study.json       settings, tables, versions; a folder with it is whole
"""

from __future__ import annotations

import io
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.files import write_json
from engine.reports.files import atlas_origin, png_with_origin, write_figure, write_script

RECORD = "study.json"
LIBRARIES = ("torch", "diffusers", "transformers", "numpy")
"""Whose versions an image may depend on."""


class Study(NamedTuple):
    """What a study found."""

    what: str
    """`sweep`, `levels`, `neurons` or `injection`."""
    atlas: Atlas
    settings: Mapping[str, Any]
    """All that was asked for, and what followed from it."""
    tables: Mapping[str, pd.DataFrame]
    """By name; the first is called `table`."""
    figure: go.Figure
    grid: Image.Image


def write_study(study: Study, out: Path) -> dict[str, Any]:
    """Write a study into the folder `out`, replacing the files of an earlier one; each appears whole.

    Returns:
        The content of `study.json`.

    Raises:
        BlindspotError: the folder cannot be written.
    """
    document, out = as_document(study), Path(os.path.abspath(out))
    origin = atlas_origin(study.atlas, f"study {study.what}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as partial:
            _fill(study, Path(partial), origin)
            (out / RECORD).unlink(missing_ok=True)
            for file in sorted(Path(partial).iterdir()):
                os.replace(file, out / file.name)
        write_json(out / RECORD, document)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise BlindspotError(
            f"The study cannot be written to {out}: {error.strerror}; choose another --out."
        ) from error
    return document


def as_document(study: Study) -> dict[str, Any]:
    """A study as JSON: origin, settings, tables, versions. Numbers that do not exist are null."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    return {
        **atlas_origin(study.atlas, f"study {study.what}"),
        "atlas path": str(study.atlas.path),
        "settings": dict(study.settings),
        **{
            name: json.loads(table.to_json(orient="records", double_precision=12))
            for name, table in study.tables.items()
        },
        "versions": versions,
    }


def _fill(study: Study, folder: Path, origin: dict[str, str]) -> None:
    """Write everything but the record."""
    for name, table in study.tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    write_figure(study.figure, folder / "figure", ("html",), origin)
    write_script(folder)
    drawn = io.BytesIO()
    study.grid.save(drawn, "PNG")
    (folder / "grid.png").write_bytes(png_with_origin(drawn.getvalue(), origin))
