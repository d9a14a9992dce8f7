"""A report's ratings and tables as files to take along."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pandas as pd

from engine.files import spreadsheet_safe, write_whole
from engine.ratings.report import RatingReport

FORMATS = ("csv", "parquet")


def ratings_table(found: RatingReport) -> pd.DataFrame:
    """Return one row per rating and method, every cell a number or text."""
    table = found.ratings.drop(columns="item")
    value = table["value"].map(lambda one: ",".join(map(str, one)) if isinstance(one, tuple) else str(one))
    return table.assign(value=value)


def table_bytes(table: pd.DataFrame, suffix: str) -> bytes:
    """Return a table as CSV, whose texts no spreadsheet runs as a formula, or as parquet."""
    if suffix == "csv":
        return table.map(spreadsheet_safe).to_csv(index=False).encode("utf-8")
    written = io.BytesIO()
    table.to_parquet(written, index=False)
    return written.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_tables(found: RatingReport, folder: Path, suffix: str) -> list[Path]:
    """Write ``ratings`` and every table of a report into a folder; each file appears whole."""
    written = []
    for name, table in {"ratings": ratings_table(found), **found.tables}.items():
        if not len(table.columns):
            continue
        path = folder / f"{name}.{suffix}"
        write_whole(path, partial(_write, content=table_bytes(table, suffix)))
        written.append(path)
    return written
