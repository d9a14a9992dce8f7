"""The tables of an atlas as CSV or parquet: those on disk, and the curves and spectra of the composition."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from engine.atlas import Atlas
from engine.atlas.schema import TABLES
from engine.atlas.storage import read_table
from engine.errors import BlindspotError
from engine.files import write_json

FORMATS = ("csv", "parquet")
METADATA = b"blindspot-atlas"
"""The key in a parquet file's schema metadata that holds its origin as JSON."""


def check_format(kind: str) -> None:
    """Raise `BlindspotError` if tables cannot be written as `kind`."""
    if kind not in FORMATS:
        raise BlindspotError(f"Tables cannot be exported as {kind!r}: choose {' or '.join(FORMATS)}.")


def tables_of(atlas: Atlas) -> dict[str, Callable[[], pa.Table]]:
    """Per file name without its ending, what loads the table."""
    found = {
        name.replace("/", "_"): lambda name=name: read_table(atlas.path, name) for name in TABLES if atlas.has(name)
    }
    if atlas.has("composition"):
        found |= {"composition_curves": lambda: curves(atlas), "composition_spectrum": lambda: spectrum(atlas)}
    return found


def curves(atlas: Atlas) -> pa.Table:
    """L0 curve and unique share of every source: source, eps, l0, unique, reference."""
    frames = []
    for source in atlas.sources:
        found = atlas.composition(source.name)
        columns = {"eps": found.eps, "l0": found.l0, "unique": found.unique, "reference": found.reference}
        frames.append(pd.DataFrame({"source": source.name, **columns}))
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


def spectrum(atlas: Atlas) -> pa.Table:
    """Leading eigenvalues of Z^T Z of every source, per image: source, rank (from 1), eigenvalue."""
    frames = []
    for source in atlas.sources:
        found = atlas.composition(source.name)
        rank = np.arange(1, len(found.eigenvalues) + 1)
        frames.append(
            pd.DataFrame({"source": source.name, "rank": rank, "eigenvalue": found.eigenvalues / found.images})
        )
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


def write_table(table: pa.Table, stem: Path, kind: str, origin: dict[str, str]) -> list[Path]:
    """Write a table beside its origin: in a JSON file of the same name for CSV, in the metadata for parquet.

    Lists become their entries, joined by `; `, in CSV.
    """
    path = stem.with_name(f"{stem.name}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        metadata = {METADATA: json.dumps(origin, sort_keys=True).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")
        return [path]
    pyarrow.csv.write_csv(_flat(table), path)
    columns = {field.name: str(field.type) for field in table.schema}
    write_json(stem.with_name(f"{stem.name}.json"), origin | {"columns": columns, "rows": table.num_rows})
    return [path, stem.with_name(f"{stem.name}.json")]


def _flat(table: pa.Table) -> pa.Table:
    for number, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            joined = ["; ".join(entries or ()) for entries in table[field.name].to_pylist()]
            table = table.set_column(number, field.name, pa.array(joined, pa.string()))
    return table
