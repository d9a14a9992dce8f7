"""An atlas as files for a paper or another program: every table, and every figure that the atlas supports.

    OUT/export.json         where all of it comes from, what is there and what was left out
    OUT/tables/*.csv        with a .json each, or *.parquet
    OUT/figures/*.html      or .json, .png, .svg

The figures are those of `engine.reports`, as the pages show them: 12 concepts at either end of a ranking, 16 changed
pairs of concepts. The tables hold all of them. The folder is whole or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from engine.atlas import Atlas
from engine.atlas.analyses import Composition
from engine.atlas.schema import TABLES
from engine.atlas.storage import read_table
from engine.blindspots.correlation import METHODS
from engine.errors import BlindspotError
from engine.figures.compare import QUANTITIES
from engine.files import spreadsheet_safe, write_json
from engine.reports import report, report_names
from engine.reports.files import atlas_origin, check_formats, write_figure, write_script

MARK = "export.json"
"""The file by which an export is known; only a folder with it is ever replaced."""
TABLE_FORMATS = ("csv", "parquet")
METADATA = b"blindspot-atlas"
"""The key in a parquet file's schema metadata that holds its origin as JSON."""
SHARED_FIGURES = {
    "distribution": "delta-densities",
    "divergence": "divergence",
    "composition_l0": "connections",
    "composition_unique": "unique-connections",
    "composition_spectrum": "spectrum",
}
"""File names and reports of figures that show all models."""
MODEL_FIGURES = {
    "map": "map",
    "ranking": "delta-ranking",
    "frequency": "frequency",
    "copies": "copies",
    "directions": "directions",
    "changes": "changed-pairs",
}
"""File names, which end in a model's name, and reports of figures of one model."""

Progress = Callable[[int, int], None]


class Exported(NamedTuple):
    """What an export wrote."""

    out: Path
    tables: list[str]
    """Files relative to `out`."""
    figures: list[str]
    """Files relative to `out`."""
    skipped: dict[str, str]
    """Per figure that the atlas does not support, why."""


def export(
    atlas: Atlas,
    out: Path,
    task: Callable[[str, str], Progress],
    *,
    table_format: str | None = "csv",
    figure_formats: Sequence[str] = ("html", "json"),
) -> Exported:
    """Write tables and figures of an atlas into the new folder `out`; an earlier export there is replaced.

    Parameters
    ----------
    atlas
        The atlas.
    out
        The folder.
    task
        Given a name and a unit, returns what is called with the work done and all work.
    table_format
        ``csv`` or ``parquet``; None for no tables.
    figure_formats
        Any of ``html``, ``json``, ``png`` and ``svg``; empty for no figures.

    Raises
    ------
    BlindspotError
        If `out` holds something else, or a format is unknown or cannot be drawn here.
    """
    if table_format is not None and table_format not in TABLE_FORMATS:
        raise BlindspotError(f"Tables cannot be exported as {table_format!r}: choose {' or '.join(TABLE_FORMATS)}.")
    check_formats(figure_formats)
    with _whole_folder(out) as folder:
        tables = _write_tables(atlas, folder, table_format, task) if table_format else []
        figures, skipped = _write_figures(atlas, folder, figure_formats, task) if figure_formats else ([], {})
        found = {"tables": tables, "figures": figures, "skipped": skipped}
        write_json(folder / MARK, atlas_origin(atlas, "export") | found)
    return Exported(out, tables, figures, skipped)


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `out` if nothing goes wrong, else nothing stays of it."""
    out = Path(os.path.abspath(out))
    if out.exists() and not (out / MARK).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise BlindspotError(f"{out} exists and is not an export; choose another --out.")
    partial, old = (out.with_name(f".{out.name}.{role}-{os.getpid()}") for role in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def figures_of(atlas: Atlas) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return, per file name without its ending, the report of a figure and its parameters."""
    named: dict[str, tuple[str, dict[str, Any]]] = {file: (name, {}) for file, name in SHARED_FIGURES.items()}
    for model in atlas.models:
        named |= {f"{file}_{model}": (name, {"model": model}) for file, name in MODEL_FIGURES.items()}
    possible = report_names(atlas)
    if "maps" in possible:
        named["maps"] = ("maps", {"models": tuple(atlas.models)})
    if "scatter-matrix" in possible:
        for quantity in QUANTITIES:
            named[f"scatter_{quantity}"] = ("scatter-matrix", {"quantity": quantity})
            for method in METHODS:
                named[f"correlation_{quantity}_{method}"] = (f"correlation-{method}", {"quantity": quantity})
    return named | {name.replace("-", "_"): (name, {}) for name in possible if name.startswith("dictionary-")}


def _write_figures(
    atlas: Atlas, folder: Path, formats: Sequence[str], task: Callable[[str, str], Progress]
) -> tuple[list[str], dict[str, str]]:
    named = figures_of(atlas)
    progress, written, skipped = task("figures", "figures"), [], {}
    for number, (file, (name, parameters)) in enumerate(named.items(), start=1):
        try:
            figure = report(atlas, name, **parameters).figure
        except BlindspotError as error:
            skipped[file] = str(error)
        else:
            written += write_figure(figure, folder / "figures" / file, formats, atlas_origin(atlas, file))
        progress(number, len(named))
    if "html" in formats and written:
        write_script(folder / "figures")
    return [path.relative_to(folder).as_posix() for path in written], skipped


def tables_of(atlas: Atlas) -> dict[str, Callable[[], pa.Table]]:
    """Return, per file name without its ending, what loads a table: those on disk, and those of the composition."""
    found: dict[str, Callable[[], pa.Table]] = {
        name.replace("/", "_"): partial(read_table, atlas.path, name) for name in TABLES if atlas.has(name)
    }
    if atlas.has("composition"):
        found["composition_curves"] = partial(_per_source, atlas, _curves)
        found["composition_spectrum"] = partial(_per_source, atlas, _spectrum)
    return found


def _per_source(atlas: Atlas, columns: Callable[[Composition], dict[str, np.ndarray]]) -> pa.Table:
    """Return columns of every source's composition below each other, the source's name first."""
    frames = [pd.DataFrame({"source": one.name, **columns(atlas.composition(one.name))}) for one in atlas.sources]
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


def _curves(found: Composition) -> dict[str, np.ndarray]:
    return {"eps": found.eps, "l0": found.l0, "unique": found.unique, "reference": found.reference}


def _spectrum(found: Composition) -> dict[str, np.ndarray]:
    """Rank, from 1, and leading eigenvalues of Z^T Z per image."""
    return {"rank": np.arange(1, len(found.eigenvalues) + 1), "eigenvalue": found.eigenvalues / found.images}


def _write_tables(atlas: Atlas, folder: Path, kind: str, task: Callable[[str, str], Progress]) -> list[str]:
    named = tables_of(atlas)
    progress, written = task("tables", "tables"), []
    for number, (name, load) in enumerate(named.items(), start=1):
        written += write_table(load(), folder / "tables" / name, kind, atlas_origin(atlas, name))
        progress(number, len(named))
    return [path.relative_to(folder).as_posix() for path in written]


def write_table(table: pa.Table, stem: Path, kind: str, origin: dict[str, str]) -> list[Path]:
    """Write a table beside its origin: in a JSON file of the same name for CSV, in the metadata for parquet.

    Lists become their entries, joined by ``; ``, in CSV.
    """
    path = stem.with_name(f"{stem.name}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        metadata = {METADATA: json.dumps(origin, sort_keys=True).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")
        return [path]
    columns = {field.name: str(field.type) for field in table.schema}
    for number, field in enumerate(table.schema):
        kind_of = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not (pa.types.is_list(kind_of) or pa.types.is_string(kind_of) or pa.types.is_large_string(kind_of)):
            continue
        cells = table[field.name].to_pylist()
        if pa.types.is_list(kind_of):
            cells = ["; ".join(map(str, entries or ())) for entries in cells]
        table = table.set_column(number, field.name, pa.array(map(spreadsheet_safe, cells), pa.string()))
    pyarrow.csv.write_csv(table.rename_columns([spreadsheet_safe(name) for name in table.column_names]), path)
    beside = stem.with_name(f"{stem.name}.json")
    write_json(beside, origin | {"columns": columns, "rows": table.num_rows})
    return [path, beside]
