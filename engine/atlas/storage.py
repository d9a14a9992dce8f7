"""What an atlas is stored as: tables, CSR matrices, ranked lists, pictures and the list of its files with checksums.

Failures are sentences. A folder of thumbnails or of drawn images is one entry of the list of files, as tens of
thousands of pictures would drown the header: its checksum is taken over the sorted names and checksums of its files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy.typing import DTypeLike
from PIL import Image
from scipy import sparse

from engine.atlas import schema
from engine.atlas.schema import FileEntry
from engine.blindspots.rows import take_rows
from engine.errors import BlindspotError
from engine.files import ArrayAppender, regular_file, write_array

PICTURES = ("thumbs", "gallery", "stress")
"""Folders of folders of pictures."""
MIB = 1 << 20
JSON_BYTES = PICTURE_BYTES = 32 * MIB
PICTURE_SIDE = 4096
ROWS_PER_BYTE, BYTES_PER_BYTE = 64, 500
"""How far a table can be compressed; one that claims more is made to fill the memory."""


def damaged(path: Path, why: object) -> BlindspotError:
    """The error for a file that is there and cannot be what it should be."""
    return BlindspotError(f"{path} is damaged ({why}): run `python -m precompute verify` on the atlas, or rebuild it.")


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Turn whatever a parser raises on a file that is missing or damaged into one sentence."""
    try:
        yield
    except BlindspotError:
        raise
    except FileNotFoundError as error:
        raise BlindspotError(f"{path} is missing: the atlas is incomplete, rebuild it.") from error
    except Exception as error:
        raise damaged(path, (str(error).splitlines() or [type(error).__name__])[0][:200]) from error


def read_document(root: Path, rel: str) -> Any:
    """What the JSON file `rel` of the atlas at `root` says; raises `BlindspotError` when it is missing or damaged."""
    with parsing(root / rel):
        path = regular_file(root, rel)
        if path.stat().st_size > JSON_BYTES:
            raise damaged(path, f"it has more than {JSON_BYTES} bytes")
        return json.loads(path.read_text(encoding="utf-8"))


def read_table(root: Path, name: str) -> pa.Table:
    """Table `name` of the atlas at `root`, with exactly its schema's columns; those that came later may be null.

    Raises
    ------
    BlindspotError
        If the file is missing, truncated or lacks a column.
    """
    path = root / schema.table_file(name)
    wanted = schema.TABLES[name]
    with parsing(path):
        regular_file(root, schema.table_file(name))
        _expect_moderate(path)
        table = pq.ParquetFile(path).read()
        for column in schema.LATER.get(name, ()):
            if column not in table.column_names:
                table = table.append_column(column, pa.nulls(len(table)))
        table = table.select(wanted.names).cast(wanted).combine_chunks()
        table.validate(full=True)
        return table


def _expect_moderate(path: Path) -> None:
    """Raise `BlindspotError` for a table that would fill the memory, by what its footer says."""
    found, size = pq.read_metadata(path), path.stat().st_size
    unpacked = sum(found.row_group(group).total_byte_size for group in range(found.num_row_groups))
    if not (0 <= found.num_rows <= ROWS_PER_BYTE * size and 0 <= unpacked <= BYTES_PER_BYTE * size + 64 * MIB):
        raise damaged(path, f"it claims {found.num_rows} rows and {unpacked} bytes in a file of {size} bytes")


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
    def open(cls, folder: Path, concepts: int, root: Path | None = None) -> CSR:
        """Map `<folder>/{indptr,indices,values}.npy`, below which no link leads out of `root` (by default the folder).

        Raises `BlindspotError` when one is missing, no array of its kind, or the row pointers are out of order; the
        entries are checked when they are read.
        """
        parts = []
        for part in schema.CSR_PARTS:
            path = folder / f"{part}.npy"
            with parsing(path):
                regular_file(root or folder, path.relative_to(root or folder).as_posix())
                parts.append(np.load(path, mmap_mode="r", allow_pickle=False))
        indptr, indices, values = parts
        if any(part.ndim != 1 for part in parts) or indptr.size == 0 or not indptr[-1] == len(indices) == len(values):
            raise damaged(folder, "its three arrays do not fit together")
        kinds = (indptr.dtype, indices.dtype, values.dtype)
        if kinds[0] != np.int64 or kinds[1] not in (np.uint16, np.uint32) or values.dtype.kind != "f":
            raise damaged(folder, f"its dtypes are {', '.join(map(str, kinds))}")
        if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
            raise damaged(folder, "its row pointers do not rise from 0")
        return cls(indptr, indices, values, concepts)

    def entries(self, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Concepts and values of the entries `start` to `stop`; raises `BlindspotError` when they cannot be any."""
        indices, values = self.indices[start:stop], self.values[start:stop]
        if len(indices) and int(indices.max()) >= self.concepts:
            raise BlindspotError(
                f"A matrix of the atlas names concept {int(indices.max())} of {self.concepts}: verify it."
            )
        if not np.isfinite(values).all():
            raise BlindspotError("A matrix of the atlas holds a value that is not a finite number: verify the atlas.")
        return indices, values

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
        stored, values = self.entries(int(pointers[0]), int(pointers[-1]))
        indices, values = stored.astype(np.int32), values.astype(np.float32)
        return sparse.csr_matrix((values, indices, pointers - pointers[0]), shape=(len(pointers) - 1, self.concepts))

    def column(self, concept: int, start: int, stop: int) -> np.ndarray:
        """[stop - start] float32 values of one concept over consecutive rows."""
        pointers = np.asarray(self.indptr[start : stop + 1])
        indices, values = self.entries(int(pointers[0]), int(pointers[-1]))
        hits = np.flatnonzero(np.asarray(indices) == concept)
        dense = np.zeros(stop - start, np.float32)
        rows = np.searchsorted(pointers - pointers[0], hits, side="right") - 1
        dense[rows] = values[hits]
        return dense


class CSRFolder:
    """Codes or energies in a folder, of which only the rows asked for are in memory: files are closed in between.

    Parameters
    ----------
    folder : what `CSR.save` or `CSRAppender` wrote.
    concepts : number of columns.
    """

    def __init__(self, folder: Path, concepts: int) -> None:
        self.folder, self.concepts = folder, concepts
        self.shape = len(self._part("indptr")) - 1, concepts

    def rows(self, start: int = 0, stop: int | None = None) -> sparse.csr_matrix:
        """Rows `start` to `stop` as a float32 scipy matrix in memory; errors as for `CSR.entries`."""
        indptr, indices, values = map(self._part, schema.CSR_PARTS)
        return CSR(indptr, indices, values, self.concepts).rows(start, stop)

    def __getitem__(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Some rows in memory, in their order."""
        return take_rows(self, rows)

    def _part(self, part: str) -> np.ndarray:
        path = self.folder / f"{part}.npy"
        with parsing(path):
            return np.load(path, mmap_mode="r", allow_pickle=False)


class CSRAppender:
    """Writes a CSR folder block by block, byte for byte as `CSR.save` would; it is there once `close` was called.

    Parameters
    ----------
    folder : gets `indptr.npy`, `indices.npy` and `values.npy`.
    concepts : number of columns.
    dtype : of the values.
    """

    def __init__(self, folder: Path, concepts: int, dtype: DTypeLike) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = [
            ArrayAppender(folder / f"{part}.npy", kind)
            for part, kind in zip(schema.CSR_PARTS, (np.int64, schema.index_dtype(concepts), dtype), strict=True)
        ]
        self._parts[0].append(np.zeros(1))
        self.entries = 0

    def append(self, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> None:
        """Add some rows; `indptr` starts at 0."""
        for part, array in zip(self._parts, (indptr[1:] + self.entries, indices, values), strict=True):
            part.append(array)
        self.entries += len(values)

    def close(self) -> None:
        """Put the files in their places."""
        for part in self._parts:
            part.close()


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
    return _read_picture(root, path, f"The thumbnail {path} is missing: the atlas is incomplete, rebuild it.")


def read_drawn(root: Path, concept: int, rank: int) -> bytes:
    """The webp bytes of one of the images drawn for a concept."""
    path = root / schema.gallery_file(concept, rank)
    return _read_picture(root, path, f"The drawn image {path} is missing: run `python -m precompute gallery` again.")


def read_stress(root: Path, concept: int, model: str) -> bytes:
    """The webp bytes of the best images of a stress test of a concept in a model."""
    path = root / schema.stress_file(concept, model)
    return _read_picture(root, path, f"The images {path} are missing: run `python -m precompute stress` again.")


def _read_picture(root: Path, path: Path, missing: str) -> bytes:
    try:
        if regular_file(root, path.relative_to(root).as_posix()).stat().st_size > PICTURE_BYTES:
            raise damaged(path, f"it has more than {PICTURE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BlindspotError(missing) from error


def decode_thumb(root: Path, image: int) -> Image.Image:
    """The thumbnail of `image` as an RGB picture."""
    content = read_thumb(root, image)
    with (
        parsing(root / schema.thumb_file(image)),
        Image.open(io.BytesIO(content), formats=["WEBP"]) as picture,
    ):
        if max(picture.size) > PICTURE_SIDE:
            raise ValueError(f"it is {picture.width} x {picture.height} pixels large")
        return picture.convert("RGB")


def files_below(root: Path) -> tuple[list[str], list[str]]:
    """Relative paths of all regular files below `root`, and of all links, pipes and devices, both sorted."""
    regular, odd = [], []
    for folder, folders, names in os.walk(root):
        for name in (*names, *folders):
            path = Path(folder, name)
            rel = path.relative_to(root).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                odd.append(rel)
            elif name in names:
                regular.append(rel)
    return sorted(regular), sorted(odd)


def manifest(root: Path) -> dict[str, FileEntry]:
    """Describe every regular file under `root` but the header, by its path relative to `root`, sorted.

    A file whose rows cannot be read (a truncated table) is listed without rows.
    """
    entries: dict[str, FileEntry] = {}
    pictures: dict[str, list[Path]] = {}
    for rel in files_below(root)[0]:
        parts = rel.split("/")
        if parts[0] not in PICTURES and rel != schema.HEADER:
            entries[rel] = FileEntry(_sha256(root / rel), (root / rel).stat().st_size, _rows(root / rel))
        elif parts[0] in PICTURES and len(parts) == 3:
            pictures.setdefault("/".join(parts[:2]) + "/", []).append(root / rel)
    entries |= {rel: _folder_entry(files) for rel, files in pictures.items()}
    return dict(sorted(entries.items()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_entry(files: list[Path]) -> FileEntry:
    lines = "".join(f"{path.name} {_sha256(path)}\n" for path in sorted(files))
    digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    return FileEntry(digest, sum(path.stat().st_size for path in files), len(files))


def _rows(path: Path) -> int | None:
    """Rows of a parquet table, length of an npy array's first axis, None for any other file."""
    try:
        if path.suffix == ".parquet":
            return pq.read_metadata(path).num_rows
        if path.suffix == ".npy":
            return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
    except Exception:  # whatever a parser says of a damaged file
        return None
    return None
