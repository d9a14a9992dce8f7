"""What an atlas is stored as: tables, CSR matrices, ranked lists, pictures and the list of its files with checksums.

Failures are sentences. A folder of thumbnails or of drawn images is one entry of the list of files, as tens of
thousands of pictures would drown the header: its checksum is taken over the sorted names and checksums of its files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy.typing import DTypeLike
from PIL import Image, UnidentifiedImageError
from scipy import sparse

from engine.atlas import schema
from engine.atlas.schema import FileEntry
from engine.errors import BlindspotError
from engine.files import write_array

PICTURES = ("thumbs", "gallery")
"""Folders of folders of pictures."""


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


class CSR(NamedTuple):
    """Codes or energies, rows x concepts, in memory or mapped from disk, where only the rows asked for are read."""

    indptr: Int[np.ndarray, " rows_and_1"]
    """int64."""
    indices: Int[np.ndarray, " nnz"]
    """Concepts, ascending within a row; uint16 or uint32."""
    values: Float[np.ndarray, " nnz"]
    """Above zero; stored as float16 (codes) or float32 (energy)."""
    concepts: int
    """Number of columns."""

    @classmethod
    def open(cls, folder: Path, concepts: int) -> CSR:
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

    @classmethod
    def concatenate(cls, blocks: Sequence[CSR]) -> CSR:
        """The rows of all blocks (at least one), one after the other, in memory."""
        offsets = np.cumsum([0, *(len(block.values) for block in blocks)])
        indptr = [block.indptr[1:] + offset for block, offset in zip(blocks, offsets[:-1], strict=True)]
        return cls(
            np.concatenate([np.zeros(1, np.int64), *indptr]),
            np.concatenate([block.indices for block in blocks]),
            np.concatenate([block.values for block in blocks]),
            blocks[0].concepts,
        )

    def save(self, folder: Path, dtype: DTypeLike) -> None:
        """Write what `open` maps, the values as `dtype`."""
        arrays = (self.indptr, self.indices, self.values.astype(dtype))
        for part, array in zip(schema.CSR_PARTS, arrays, strict=True):
            write_array(folder / f"{part}.npy", array)

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


def read_thumb(root: Path, image: int) -> bytes:
    """The webp bytes of the thumbnail of `image`."""
    path = root / schema.thumb_file(image)
    return _read_picture(path, f"The thumbnail {path} is missing: the atlas is incomplete, rebuild it.")


def read_drawn(root: Path, concept: int, rank: int) -> bytes:
    """The webp bytes of one of the images drawn for a concept."""
    path = root / schema.gallery_file(concept, rank)
    return _read_picture(path, f"The drawn image {path} is missing: run `python -m precompute gallery` again.")


def _read_picture(path: Path, missing: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BlindspotError(missing) from error


def decode_thumb(root: Path, image: int) -> Image.Image:
    """The thumbnail of `image` as an RGB picture."""
    try:
        with Image.open(io.BytesIO(read_thumb(root, image)), formats=["WEBP"]) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise damaged(root / schema.thumb_file(image), error) from error


def manifest(root: Path) -> dict[str, FileEntry]:
    """Describe every file under `root` but the header, by its path relative to `root`, sorted.

    A file whose rows cannot be read (a truncated table) is listed without rows.
    """
    entries: dict[str, FileEntry] = {}
    for path in sorted(root.rglob("*")):
        rel = path.relative_to(root).as_posix()
        if path.is_dir():
            if path.parent.name in PICTURES and path.parent.parent == root:
                entries[rel + "/"] = _folder_entry(path)
        elif rel != schema.HEADER and rel.split("/")[0] not in PICTURES:
            entries[rel] = FileEntry(_sha256(path), path.stat().st_size, _rows(path))
    return entries


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_entry(folder: Path) -> FileEntry:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = "".join(f"{path.name} {_sha256(path)}\n" for path in files)
    return FileEntry(hashlib.sha256(lines.encode()).hexdigest(), sum(p.stat().st_size for p in files), len(files))


def _rows(path: Path) -> int | None:
    """Rows of a parquet table, length of an npy array's first axis, None for any other file."""
    try:
        if path.suffix == ".parquet":
            return pq.read_metadata(path).num_rows
        if path.suffix == ".npy":
            return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
    except (OSError, ValueError, IndexError):
        return None
    return None
