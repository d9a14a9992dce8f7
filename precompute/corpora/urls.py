"""A random sample of valid pairs of image and caption from a table of addresses, such as LAION's.

Rows are tried in a seeded random order until enough of them gave an image; what each row came to is written down in
blocks, so that a run that was stopped asks no address again. Images are kept as they were sent.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import BlindspotError, printable
from engine.files import read_json, write_json, write_whole
from engine.vision.preprocess import ImageError, decoded_image, sniff_format
from precompute.corpora.fetching import FetchLimits, NotFetched, fetch
from precompute.corpora.records import ImageRecord, SkippedImage, write_manifest
from precompute.recipe import Limits, Urls
from precompute.runner import Progress

AHEAD = 16
"""Blocks that are asked for at once."""
BLOCK = 32
"""Rows that are asked for before what they came to is written down."""
UNSAFE_WORDS = frozenset(("nsfw", "likely", "unsure", "unsafe", "true", "yes", "1", "1.0"))
"""Values of a flag that keep an image out; LAION's column NSFW says UNLIKELY of the others."""
FLAGS = ("nsfw", "unsafe", "is_nsfw", "is_unsafe")
PROBABILITIES = ("punsafe", "p_unsafe", "nsfw_score")
"""Columns with a probability, from 0.5 of which an image is kept out."""
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp"}


@dataclass(frozen=True)
class TableRow:
    """What one row of the table came to."""

    row: int
    url: str
    caption: str | None
    licence: str | None
    file: str = ""
    """Its image in the stage's folder; empty if there is none."""
    width: int = 0
    height: int = 0
    sha256: str = ""
    reason: str = ""
    """Why there is no image."""
    kind: str = ""
    """The reason in a few words."""


def gather_urls(source: Urls, limits: Limits, folder: Path, progress: Progress) -> dict[str, int]:
    """Fetch images of a table until there are as many as are wanted.

    Parameters
    ----------
    source : the table and its columns.
    limits : `images`, how many are wanted (all if not given), the seed of their order, and how large they may be.
    folder : the stage's folder; gets `images/`, what each row came to, and the manifest.
    progress : called with the images so far and the wanted ones.

    Raises
    ------
    BlindspotError
        If the table cannot be read, or no row gave an image.
    """
    table = read_urls(source)
    wanted = min(limits.images or len(table), len(table))
    fetched: list[TableRow] = []
    seen: dict[str, str] = {}
    good = 0
    with closing(_blocks(table, source, limits, wanted, folder)) as blocks:
        for block in blocks:
            for one in block:
                if one.file and good == wanted:
                    break
                if one.file and one.sha256 in seen:
                    (folder / one.file).unlink(missing_ok=True)
                    same = {"file": "", "kind": "duplicate", "reason": f"duplicate of {seen[one.sha256]}"}
                    one = TableRow(**asdict(one) | same)
                elif one.file:
                    seen[one.sha256] = one.url
                    good += 1
                fetched.append(one)
            progress(good, wanted)
            if good == wanted:
                break
    kept = {one.file for one in fetched if one.file}
    for path in (folder / "images").glob("*"):  # of the last block, beyond what was wanted
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    fetched.sort(key=lambda one: one.row)
    images = [
        ImageRecord(folder / one.file, one.url, f"{one.row:09d}", one.caption, one.width, one.height, one.sha256,
                    one.url, one.licence)
        for one in fetched if one.file
    ]  # fmt: skip
    skipped = [
        SkippedImage(one.url, f"{one.row:09d}", printable(f"{one.url} was left out: {one.reason}."), one.kind)
        for one in fetched if not one.file
    ]  # fmt: skip
    if not images:
        raise BlindspotError(
            f"None of the {len(table)} rows of {source.urls} gave an image; the first: {skipped[0].reason}"
        )
    return write_manifest(folder, images, skipped) | {"sampled_from": len(table), "wanted": wanted}


def read_urls(source: Urls) -> pd.DataFrame:
    """The rows of a table with the columns `url`, `caption`, `licence` and `unsafe` (bool).

    Raises
    ------
    BlindspotError
        If it cannot be read, or lacks a column.
    """
    frames = [_read(path) for path in _tables(source.urls)]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    names = {str(column).lower(): column for column in table.columns}

    def column(given: str | None, usual: tuple[str, ...]) -> Any:
        found = given if given in table.columns else next((names[name] for name in usual if name in names), None)
        if given is not None and found != given:
            known = ", ".join(map(str, table.columns))
            raise BlindspotError(f"The table {source.urls} has no column {given!r}: it has {known[:300]}.")
        return found

    url = column(source.url, ("url", "image_url", "urls"))
    if url is None:
        raise BlindspotError(f"The table {source.urls} has no column of addresses: name it by real.url.")
    caption = column(source.caption, ("caption", "text", "top_caption", "alt_text", "prompt"))
    licence = column(source.licence, ("licence", "license"))
    flags = [names[name] for name in FLAGS if name in names]
    chances = [names[name] for name in PROBABILITIES if name in names]
    unsafe = np.zeros(len(table), bool)
    for name in flags:
        unsafe |= table[name].astype(str).str.strip().str.lower().isin(UNSAFE_WORDS).to_numpy()
    for name in chances:
        unsafe |= (pd.to_numeric(table[name], errors="coerce") >= 0.5).to_numpy()
    return pd.DataFrame(
        {
            "url": table[url].map(_text),
            "caption": table[caption].map(_text) if caption is not None else None,
            "licence": table[licence].map(_text) if licence is not None else None,
            "unsafe": unsafe,
        }
    )


def _text(value: Any) -> str | None:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text or None


def _tables(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for kind in ("parquet", "csv", "tsv", "jsonl") for file in path.glob(f"*.{kind}"))
        if not found:
            raise BlindspotError(f"The folder {path} has no table of addresses: parquet, csv, tsv or jsonl.")
        return found
    if not path.is_file():
        raise BlindspotError(f"There is no table {path}; give a parquet, csv, tsv or jsonl file, or a folder of them.")
    return [path]


def _read(path: Path) -> pd.DataFrame:
    try:
        match path.suffix.lower():
            case ".parquet":
                return pd.read_parquet(path)
            case ".csv" | ".tsv":
                return pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", dtype=str)
            case ".jsonl":
                return pd.read_json(path, lines=True, dtype=False)
    except Exception as error:  # whatever a parser says of a damaged file
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BlindspotError(f"The table {path} cannot be read: {line}.") from error
    raise BlindspotError(f"The table {path} is none of parquet, csv, tsv and jsonl.")


def _blocks(
    table: pd.DataFrame, source: Urls, limits: Limits, wanted: int, folder: Path
) -> Generator[list[TableRow], None, None]:
    """What the rows came to, in their random order, some at a time; later ones are asked for while early ones answer.

    One address that does not answer takes all of its time: were the others of its block alone in the meantime, they
    would wait for it. No more blocks are asked for ahead than may be needed.
    """
    allowed = tuple(ipaddress.ip_network(network, strict=False) for network in source.allow_networks)
    bounds = FetchLimits(source.max_bytes, source.timeout, allowed)
    order = np.random.default_rng(limits.seed).permutation(len(table))
    captioned = bool(table["caption"].notna().any())
    records = table.to_dict("records")
    starts = deque(range(0, len(order), BLOCK))
    begun: deque[tuple[Path, list[Future[TableRow]]]] = deque()
    good = 0

    def got(row: int) -> TableRow:
        return _row(int(row), records[row], captioned, bounds, limits.max_pixels, folder)

    pool = ThreadPoolExecutor(source.workers)
    try:
        while starts or begun:
            while starts and len(begun) < min(AHEAD, max(1, -(-(wanted - good) // BLOCK))):
                start = starts.popleft()
                path = folder / "rows" / f"{start // BLOCK:06d}.json"
                rows = () if path.exists() else order[start : start + BLOCK]
                begun.append((path, [pool.submit(got, row) for row in rows]))
            path, answers = begun.popleft()
            if answers:
                write_json(path, [asdict(one.result()) for one in answers])
            block = [TableRow(**one) for one in read_json(path)]
            good += sum(bool(one.file) for one in block)
            yield block
    finally:
        pool.shutdown(cancel_futures=True)


def _row(
    row: int, values: dict[Any, Any], captioned: bool, bounds: FetchLimits, max_pixels: int, folder: Path
) -> TableRow:
    """Fetch, check and keep one row's image."""
    plain = {name: None if pd.isna(values[name]) else values[name] for name in ("url", "caption", "licence")}
    known = TableRow(row, printable(plain["url"] or ""), plain["caption"], plain["licence"])
    try:
        if values["unsafe"]:
            raise NotFetched("flagged as unsafe")
        if captioned and not plain["caption"]:
            raise NotFetched("no caption")
        content = fetch(plain["url"] or "", bounds)
        kind = sniff_format(content[:64])
        with decoded_image(io.BytesIO(content), max_pixels=max_pixels) as image:
            width, height = image.size
    except (NotFetched, ImageError) as error:
        return TableRow(**asdict(known) | {"reason": str(error).rstrip("."), "kind": error.kind})
    file = f"images/{row:09d}{ENDINGS.get(kind or '', '.image')}"
    write_whole(folder / file, lambda partial: partial.write_bytes(content))
    digest = hashlib.sha256(content).hexdigest()
    return TableRow(**asdict(known) | {"file": file, "width": width, "height": height, "sha256": digest})
