"""Images of data sets that Hugging Face `datasets` reads: image folders, parquet, webdataset shards, hub ids.

Rows are streamed, never all of a data set at once; images are kept as they are. With `limits.images` the shards and,
within a window of `WINDOW` rows, the rows are shuffled by the seed before the first ones are taken.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import BlindspotError, printable
from engine.files import write_whole
from engine.vision.preprocess import ImageError, decoded_image, sniff_format
from precompute.corpora.records import ImageRecord, SkippedImage, dataset_files, write_manifest
from precompute.corpora.urls import ENDINGS
from precompute.recipe import Dataset, Limits
from precompute.runner import Progress

WINDOW = 10_000
"""Rows among which a random one is taken next."""
KINDS = {".parquet": "parquet", ".tar": "webdataset"}
"""How files of an ending are read; a folder without such files is one of images."""
TEXTS = ("caption", "url", "licence")
CAPTIONS = ("caption", "text", "txt", "prompt", "alt_text", "description")


def gather_dataset(source: Dataset, limits: Limits, folder: Path, progress: Progress) -> dict[str, int]:
    """Take images of a data set with their captions; those that cannot be read, and copies, are left out and listed.

    Parameters
    ----------
    source : the data set and its columns.
    limits : how many are taken, the seed of their order, and how large they may be.
    folder : the stage's folder; gets `images/` and the manifest.
    progress : called with the images so far and the wanted ones.

    Raises
    ------
    BlindspotError
        If `datasets` is not installed, the data set cannot be read, or has no images.
    """
    rows, columns = open_dataset(source, limits)
    images: list[ImageRecord] = []
    skipped: list[SkippedImage] = []
    seen: dict[str, str] = {}
    for number, row in enumerate(_explained(source, rows)):
        if limits.images is not None and len(images) == limits.images:
            break
        name = printable(f"{source.dataset} {source.split} {number}")
        try:
            content = _content(row[columns["image"]], source.dataset)
            digest = hashlib.sha256(content).hexdigest()
            if digest in seen:
                raise ImageError(f"{name} is a copy of {seen[digest]}.", "duplicate")
            file = folder / "images" / f"{number:09d}{ENDINGS.get(sniff_format(content[:64]) or '', '.image')}"
            with decoded_image(io.BytesIO(content), max_pixels=limits.max_pixels) as image:
                width, height = image.size
        except ImageError as error:
            skipped.append(
                SkippedImage(name, f"{number:09d}", str(error).replace("the uploaded file", name), error.kind)
            )
            continue
        seen[digest] = name
        if not file.exists():
            write_whole(file, partial(_write, content))
        text = {key: _text(row, columns[key], columns) for key in TEXTS}
        images.append(
            ImageRecord(file, text.get("url") or name, f"{number:09d}", text.get("caption"), width, height, digest,
                        text.get("url"), text.get("licence"))
        )  # fmt: skip
        progress(len(images), limits.images or len(images))
    if not images:
        why = f"; the first: {skipped[0].reason}" if skipped else ""
        raise BlindspotError(f"The data set {source.dataset} ({source.split}) gave no image{why}.")
    return write_manifest(folder, images, skipped)


def open_dataset(source: Dataset, limits: Limits) -> tuple[Any, dict[str, Any]]:
    """The rows of a data set, images as bytes, and its columns by what they hold; errors as for `gather_dataset`."""
    try:
        import datasets
    except ImportError as error:
        raise BlindspotError(
            "Data sets need the package datasets: install it by `pip install 'blindspot-atlas[datasets]'`."
        ) from error
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(**_described(source), streaming=True)
        rows = rows if rows.features else rows._resolve_features()
    except BlindspotError:
        raise
    except Exception as error:  # whatever the hub, fsspec and the parsers raise
        raise _unreadable(source, error) from error
    features = dict(rows.features)
    image = source.image or next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None or image not in features:
        said = f"no column {image!r} of images" if image else "no column of images that is known: name it by real.image"
        raise BlindspotError(f"The data set {source.dataset} has {said}; its columns: {', '.join(features)[:300]}.")
    columns: dict[str, Any] = {"image": image, "names": {}}
    for key, given, usual in (
        ("caption", source.caption, (*CAPTIONS, "label")),
        ("licence", source.licence, ("licence", "license")),
        ("url", source.url, ("url", "image_url")),
    ):
        if given is not None and given not in features:
            raise BlindspotError(
                f"The data set {source.dataset} has no column {given!r}: it has {', '.join(features)}."
            )
        columns[key] = given or next((name for name in usual if name in features), None)
    columns["names"] = {name: kind.names for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    rows = rows.cast_column(image, datasets.Image(decode=False))
    return (rows if limits.images is None else rows.shuffle(seed=limits.seed, buffer_size=WINDOW)), columns


def _described(source: Dataset) -> dict[str, Any]:
    """The arguments of `load_dataset`."""
    if not Path(source.dataset).is_absolute():
        return {"path": source.dataset, "name": source.config, "split": source.split, "revision": source.revision}
    files = dataset_files(source.dataset)
    if not files or not Path(files[0]).exists():
        raise BlindspotError(f"There is no data set {source.dataset}: give a folder, a file or an id of the hub.")
    if Path(files[0]).is_dir():
        inside = [str(path) for path in sorted(Path(files[0]).rglob("*")) if path.suffix in KINDS and path.is_file()]
        if not inside:
            return {"path": "imagefolder", "data_dir": files[0], "split": source.split}
        files = [path for path in inside if Path(path).suffix == Path(inside[0]).suffix]
    ending = Path(files[0]).suffix
    if ending not in KINDS:
        raise BlindspotError(f"The data set {files[0]} is no parquet file, no .tar shard and no folder.")
    return {"path": KINDS[ending], "data_files": {source.split: files}, "split": source.split}


def _explained(source: Dataset, rows: Any) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except BlindspotError:
        raise
    except Exception as error:  # as above, on some later row
        raise _unreadable(source, error) from error


def _unreadable(source: Dataset, error: Exception) -> BlindspotError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
    return BlindspotError(f"The data set {source.dataset} cannot be read: {line}.")


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _content(value: Any, data_set: str) -> bytes:
    """The bytes of an image that was not decoded; a file that a row names is read only where the data set lies."""
    if isinstance(value, Mapping) and value.get("bytes"):
        return bytes(value["bytes"])
    if isinstance(value, bytes):
        return value
    path = value.get("path") if isinstance(value, Mapping) else None
    if not path:
        raise ImageError("The row holds no image.", "missing")
    place = path.rpartition("::")[2]  # zip://0.png::/data/images.zip lies in that archive
    inside = (f"hf://datasets/{data_set}@", f"hf://datasets/{data_set}/", os.path.join(os.path.abspath(data_set), ""))
    if not (place if place.startswith("hf://") else os.path.abspath(place)).startswith(inside):
        raise ImageError("The row holds no image, and names one outside its data set.", "missing")
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ImageError(f"The row's image cannot be read: {error}.", "missing") from error


def _text(row: Mapping[str, Any], column: str | None, columns: Mapping[str, Any]) -> str | None:
    """What a row says in a column, on one line."""
    value = row.get(column) if column else None
    if column in columns["names"] and isinstance(value, int) and value >= 0:
        value = columns["names"][column][value].replace("_", " ")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, list) and value:
        value = value[0]
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text or None
