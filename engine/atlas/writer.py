"""Writes an atlas all or nothing: into a temporary sibling folder that replaces the old one when it is complete.

    with AtlasWriter("out/atlas") as writer:
        writer.write_table("concepts", table)
        writer.write_csr("energy/real", indptr, indices, values)
        writer.finish(info)

A reader never sees half an atlas, an exception (or leaving the block without `finish`) removes the temporary folder,
and nothing in it depends on the clock: the same content has the same checksums.
"""

from __future__ import annotations

import glob
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from engine.atlas import schema
from engine.atlas.reader import Atlas
from engine.atlas.storage import PICTURES, manifest
from engine.errors import BlindspotError
from engine.files import FULL, plain

THUMB_SIZE = 224
"""Pixels of a thumbnail's longer side."""
QUALITY = 92
"""Of the webp pictures of the gallery."""


class AtlasWriter:
    """Context manager that writes the atlas at `path`, replacing an atlas that is already there.

    Attributes
    ----------
    path : where the atlas will be.
    folder : the temporary folder; another writer (a dictionary's `save`) may put files below it before `finish`.

    Raises
    ------
    BlindspotError
        If `path` holds something that is not an atlas, cannot be written, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self.folder = self._sibling("partial", os.getpid())
        self._finished = False

    def __enter__(self) -> AtlasWriter:
        with self._disk():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._clear_leftovers()
            if self.path.exists() and not (self.path / schema.HEADER).is_file() and not _empty_folder(self.path):
                raise BlindspotError(f"{self.path} exists and is not an atlas: choose another place to write to.")
            require_own_files(self.path)
            self.folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise self._sentence(error) from error

    def write_table(self, name: str, table: pa.Table | pd.DataFrame) -> None:
        """Write `table` as `<name>.parquet`, cast to its schema; extra columns are dropped, numbers that are not finite
        become null, and so do columns of `schema.LATER` that it lacks.

        Raises
        ------
        BlindspotError
            If a column is missing or does not fit its type, or the table is unknown.
        """
        if name not in schema.TABLES:
            raise BlindspotError(f"An atlas has no table {name!r}: it has {', '.join(schema.TABLES)}.")
        wanted = schema.TABLES[name]
        if isinstance(table, pd.DataFrame):
            table = pa.Table.from_pandas(table, preserve_index=False)
        for column in {*schema.LATER.get(name, ())} - {*table.column_names}:
            table = table.append_column(column, pa.nulls(len(table), wanted.field(column).type))
        missing = [column for column in wanted.names if column not in table.column_names]
        if missing:
            raise BlindspotError(f"Table {name!r} of the atlas lacks the column {missing[0]!r}.")
        try:
            table = table.select(wanted.names).cast(wanted).replace_schema_metadata(None)
            columns = [_finite(column) for column in table.columns]
            table = pa.table(columns, schema=wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise BlindspotError(f"Table {name!r} of the atlas does not fit its schema: {error}.") from error
        with self._disk(), self._target(schema.table_file(name)).open("wb") as file:
            pq.write_table(table, file, compression="zstd")

    def write_array(self, rel: str, array: np.ndarray) -> None:
        """Write `array` as the npy file `rel`; object arrays are refused."""
        if array.dtype.hasobject:
            raise BlindspotError(f"Array {rel!r} of the atlas holds Python objects: give numbers.")
        array = np.ascontiguousarray(array)
        with self._disk(), self._target(rel).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.reshape(-1).view(np.uint8).data)

    def write_arrays(self, rel: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write named arrays as the compressed npz file `rel`; object arrays are refused."""
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise BlindspotError(f"Array {name!r} of {rel} of the atlas holds Python objects: give numbers.")
        with self._disk(), self._target(rel).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def write_csr(self, folder: str, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> None:
        """Write a CSR matrix as `<folder>/{indptr,indices,values}.npy`.

        Parameters
        ----------
        folder : `codes/<source>` (values become float16) or `energy/<source>` (float32).
        indptr : [rows + 1], becomes int64.
        indices : [nnz] concepts, ascending within a row; uint16 and uint32 stay, other integers become the smaller
            of the two that holds them.
        values : [nnz] positive.
        """
        if indices.dtype not in (np.uint16, np.uint32):
            indices = indices.astype(schema.index_dtype(int(indices.max(initial=0)) + 1))
        dtype = schema.CSR_VALUES[folder.split("/")[0]]
        arrays = (indptr.astype(np.int64, copy=False), indices, values.astype(dtype, copy=False))
        for part, array in zip(schema.CSR_PARTS, arrays, strict=True):
            self.write_array(f"{folder}/{part}.npy", array)

    def write_index(self, rel: str, vectors: np.ndarray) -> None:
        """Write a FAISS inner-product index over the rows of `vectors` [n, d], normalised: a cosine index."""
        import faiss

        unit = np.array(vectors, dtype=np.float32, order="C")
        faiss.normalize_L2(unit)
        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(unit)
        self.add_file(rel, faiss.serialize_index(index).tobytes())

    def write_thumb(self, image: int, picture: Image.Image, size: int = THUMB_SIZE) -> None:
        """Write the thumbnail of global image id `image`: RGB webp with at most `size` pixels on its longer side."""
        thumb = picture.convert("RGB")
        thumb.thumbnail((size, size), Image.Resampling.LANCZOS)
        self.add_file(schema.thumb_file(image), _webp(thumb, quality=82, method=2))

    def add_file(self, rel: str, content: bytes | str | os.PathLike[str]) -> None:
        """Add the file `rel`: bytes, or the path of a file to copy."""
        target = self._target(rel)
        with self._disk():
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)

    def finish(self, info: schema.AtlasInfo) -> schema.AtlasInfo:
        """Compute the checksums, write the header last and put the atlas in its place.

        Returns
        -------
        AtlasInfo
            `info` with `files` filled in.
        """
        with self._disk():
            info = replace(info, files=manifest(self.folder))
            document = json.dumps(plain(info.to_dict()), indent=1, ensure_ascii=False, sort_keys=True)
            (self.folder / schema.HEADER).write_text(document + "\n", encoding="utf-8")
            for rel in (*info.files, schema.HEADER, "."):
                _fsync(self.folder / rel)
            self._swap()
        return info

    def _swap(self) -> None:
        old = self._sibling("old", os.getpid())
        if self.path.exists():
            self.path.rename(old)
        self.folder.rename(self.path)
        self._finished = True
        _fsync(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _clear_leftovers(self) -> None:
        """Undo what a killed writer left: bring back an atlas it had moved away, remove half-written folders."""
        name = glob.escape(self.path.name)
        for old in sorted(self.path.parent.glob(f".{name}.old-[0-9]*")):
            if not self.path.exists():
                old.rename(self.path)
            elif not _alive(old):
                shutil.rmtree(old)
        for partial in self.path.parent.glob(f".{name}.partial-[0-9]*"):
            if not _alive(partial) or partial == self.folder:
                shutil.rmtree(partial)

    def _sibling(self, role: str, pid: int) -> Path:
        return self.path.parent / f".{self.path.name}.{role}-{pid}"

    def _target(self, rel: str) -> Path:
        if not schema.contained(rel):
            raise BlindspotError(f"File {rel!r} would lie outside the atlas: give a plain relative path.")
        target = self.folder / rel
        with self._disk():
            target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._sentence(error) from error

    def _sentence(self, error: OSError) -> BlindspotError:
        if error.errno in FULL:
            return BlindspotError(
                f"Disk full while writing {self.path}: free some space and run it again, nothing half-written was kept."
            )
        return BlindspotError(f"The atlas {self.path} cannot be written: {error.strerror or error}.")


def require_own_files(path: Path) -> None:
    """Raise `BlindspotError` if the atlas at `path`, which will be replaced, holds files that are no part of one."""
    own = {schema.HEADER, schema.COMPOSITION, "images.faiss", "atoms.faiss", *schema.CSR_VALUES, *PICTURES}
    own |= {schema.table_file(name) for name in schema.TABLES} | {"dictionary"}
    foreign = (
        [name for name in os.listdir(path) if not name.startswith(".") and name not in own] if path.exists() else []
    )
    if foreign:
        raise BlindspotError(f"{path / min(foreign)} is no part of an atlas, and would be deleted with it: move it.")


def add_to_gallery(path: Path, rows: pd.DataFrame, picture: Callable[[int, int], Image.Image]) -> None:
    """Put images drawn for concepts into the atlas at `path`, all or nothing; other concepts keep those they have.

    The new atlas shares the old one's files (hard links), so that a large one is not copied.

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

    def add(writer: AtlasWriter) -> None:
        for concept, rank in rows[["concept", "rank"]].itertuples(index=False):
            writer.add_file(schema.gallery_file(concept, rank), _webp(picture(concept, rank), QUALITY, method=4))

    _replace_rows(path, "gallery", rows, Atlas.gallery, ["concept", "rank"], add)


def add_fooling(path: Path, rows: pd.DataFrame) -> None:
    """Put rows of table ``fooling`` into the atlas at `path`, as `add_to_gallery` does; errors as there."""
    _replace_rows(path, "fooling", rows, Atlas.fooling, ["concept", "method"])


def write_concept_labels(path: Path, rows: pd.DataFrame) -> None:
    """Write table ``concept_labels`` of the atlas at `path` anew, all or nothing; errors as in `add_to_gallery`."""
    atlas = Atlas.open(Path(path).resolve())
    _require_whole(atlas)
    with AtlasWriter(atlas.path) as writer:
        _share(atlas.path, writer.folder, {schema.HEADER, schema.table_file("concept_labels")})
        if len(rows):
            writer.write_table("concept_labels", rows.sort_values("concept"))
        atlas.require_same()
        writer.finish(atlas.info)


def add_stress(
    path: Path, rows: pd.DataFrame, strip: Callable[[int, str], Image.Image], pipelines: Mapping[str, Any]
) -> None:
    """Put rows of table ``stress`` into the atlas at `path`, as `add_to_gallery` does; errors as there.

    Parameters
    ----------
    rows
        One row per concept and model; concepts that are not among them keep theirs.
    strip
        (concept, model) to its best images side by side.
    pipelines
        For the header, which then names them too.
    """

    def add(writer: AtlasWriter) -> None:
        for concept, model in rows[["concept", "model"]].itertuples(index=False):
            writer.add_file(schema.stress_file(concept, model), _webp(strip(concept, model), QUALITY, method=4))

    _replace_rows(path, "stress", rows, Atlas.stress, ["concept", "model"], add, {"pipelines": dict(pipelines)})


def _replace_rows(
    path: Path,
    name: str,
    rows: pd.DataFrame,
    read: Callable[[Atlas], pd.DataFrame],
    order: list[str],
    add: Callable[[AtlasWriter], None] = lambda writer: None,
    header: Mapping[str, Any] | None = None,
) -> None:
    """Write some concepts' rows of a table anew, with what else `add` writes, into an atlas that is else the same.

    `header` holds the fields of the header that change.
    """
    atlas = Atlas.open(Path(path).resolve())
    _require_whole(atlas)
    before = read(atlas)
    replaced = before["concept"].isin(rows["concept"])
    gone = _files(name, before[replaced])
    with AtlasWriter(atlas.path) as writer:
        _share(atlas.path, writer.folder, {schema.HEADER, schema.table_file(name), *gone})
        add(writer)
        together = pd.concat([before[~replaced], rows]) if not replaced.all() else rows
        writer.write_table(name, together.sort_values(order))
        atlas.require_same()
        writer.finish(replace(atlas.info, **(header or {})))


def _files(name: str, rows: pd.DataFrame) -> list[str]:
    """The pictures that belong to rows of a table."""
    if name == "gallery":
        return [schema.gallery_file(concept, rank) for concept, rank in zip(rows["concept"], rows["rank"], strict=True)]
    if name == "stress":
        return [
            schema.stress_file(concept, model) for concept, model in zip(rows["concept"], rows["model"], strict=True)
        ]
    return []


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
        if path.is_file() and not path.is_symlink() and rel.as_posix() not in without:
            (new / rel).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, new / rel)
            except OSError:
                shutil.copy2(path, new / rel)


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with null in place of NaN and the infinities."""
    if (
        not pa.types.is_floating(column.type)
        or pc.all(finite := pc.is_finite(column), skip_nulls=True).as_py() is not False
    ):
        return column
    return pc.if_else(finite, column, pa.scalar(None, column.type))


def _webp(picture: Image.Image, quality: int, method: int) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=method)
    return buffer.getvalue()


def _empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _alive(folder: Path) -> bool:
    """Whether the process whose id ends the folder's name still runs."""
    try:
        os.kill(int(folder.name.rsplit("-", 1)[1]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
