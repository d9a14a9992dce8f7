"""Opens what an atlas is stored as: tables, memory-mapped CSR matrices and ranked lists; failures are sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from engine.atlas import schema
from engine.errors import BlindspotError


def damaged(path: Path, why: object) -> BlindspotError:
    """The error for a file that is there and cannot be what it should be."""
    return BlindspotError(f"{path} is damaged ({why}): run `python -m precompute verify` on the atlas, or rebuild it.")


def read_table(root: Path, name: str) -> pa.Table:
    """Table `name` of the atlas at `root`, with exactly its schema's columns; those that came later may be null.

    Raises
    ------
    BlindspotError
        If the file is missing, truncated or lacks a column.
    """
    path = root / schema.table_file(name)
    wanted = schema.TABLES[name]
    try:
        table = pq.read_table(path)
        for column in schema.LATER.get(name, ()):
            if column not in table.column_names:
                table = table.append_column(column, pa.nulls(len(table)))
        return table.select(wanted.names).cast(wanted).combine_chunks()
    except FileNotFoundError as error:
        raise BlindspotError(f"{path} is missing: the atlas is incomplete, rebuild it.") from error
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise damaged(path, str(error).splitlines()[0]) from error


class MappedCSR(NamedTuple):
    """A CSR matrix on disk, rows x concepts; only the rows that are asked for are read."""

    indptr: np.ndarray
    """[rows + 1] int64."""
    indices: np.ndarray
    """[nnz] uint16 or uint32, concepts, ascending within a row."""
    values: np.ndarray
    """[nnz] float16 (codes) or float32 (energy)."""
    concepts: int
    """Number of columns."""

    @classmethod
    def open(cls, folder: Path, concepts: int) -> MappedCSR:
        """Map `<folder>/{indptr,indices,values}.npy`; raises `BlindspotError` when one is missing or damaged."""
        parts = []
        for part in schema.CSR_PARTS:
            path = folder / f"{part}.npy"
            try:
                parts.append(np.load(path, mmap_mode="r", allow_pickle=False))
            except FileNotFoundError as error:
                raise BlindspotError(f"{path} is missing: the atlas is incomplete, rebuild it.") from error
            except (OSError, ValueError) as error:
                raise damaged(path, error) from error
        indptr, indices, values = parts
        if indptr.size == 0 or not indptr[-1] == len(indices) == len(values):
            raise damaged(folder, "its three arrays do not fit together")
        return cls(indptr, indices, values, concepts)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and concepts."""
        return len(self.indptr) - 1, self.concepts

    def rows(self, start: int = 0, stop: int | None = None) -> sparse.csr_matrix:
        """Rows `start` to `stop` as a float32 scipy matrix in memory."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        pointers = self.indptr[start : max(stop, start) + 1]
        entries = slice(int(pointers[0]), int(pointers[-1]))
        indices = self.indices[entries].astype(np.int32)
        values = self.values[entries].astype(np.float32)
        return sparse.csr_matrix((values, indices, pointers - pointers[0]), shape=(len(pointers) - 1, self.concepts))

    def column(self, concept: int, start: int, stop: int) -> np.ndarray:
        """[stop - start] float32 values of one concept over consecutive rows."""
        pointers = np.asarray(self.indptr[start : stop + 1])
        entries = slice(int(pointers[0]), int(pointers[-1]))
        hits = np.flatnonzero(np.asarray(self.indices[entries]) == concept)
        dense = np.zeros(stop - start, np.float32)
        rows = np.searchsorted(pointers - pointers[0], hits, side="right") - 1
        dense[rows] = self.values[entries][hits]
        return dense


class RankedTable:
    """A table of ranked lists, one per (group, concept), held as arrays for instant look-up.

    Parameters
    ----------
    table : has the columns `group`, `concept`, `rank` and `columns`.
    group : the name of the string column that groups the lists (`source` or `kind`).
    names : the values of `group` that can be asked for.
    columns : the columns that a look-up returns.
    concepts : number of concepts.
    """

    def __init__(
        self, table: pa.Table, group: str, names: Sequence[str], columns: Sequence[str], concepts: int
    ) -> None:
        self._names, self._concepts = list(names), concepts
        codes = pc.fill_null(pc.index_in(table[group], value_set=pa.array(self._names, pa.string())), -1)
        keys = codes.to_numpy().astype(np.int64) * concepts + table["concept"].to_numpy()
        order = np.lexsort((table["rank"].to_numpy(), keys))
        self._keys = keys[order]
        self._columns = {column: table[column].to_numpy()[order] for column in columns}

    def find(self, group: str, concept: int, count: int) -> dict[str, np.ndarray]:
        """The first `count` entries of one list, as {column: array}; empty arrays when there is none."""
        key = self._names.index(group) * self._concepts + concept
        start, stop = np.searchsorted(self._keys, (key, key + 1))
        stop = min(stop, start + max(count, 0))
        return {name: column[start:stop] for name, column in self._columns.items()}
