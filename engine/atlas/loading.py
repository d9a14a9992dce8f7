"""Loads the tables of an atlas into the shape that the reader answers from: arrays per source, frames per id."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from engine.atlas import schema
from engine.atlas.schema import AtlasInfo
from engine.atlas.search import ConceptSearch, ImageIndex
from engine.atlas.storage import CSR, RankedTable, damaged, read_table
from engine.blindspots.significance import Moments


class Measured(NamedTuple):
    """Rows of `energies.parquet` of one source that the reader needs."""

    moments: Moments
    """Images, sums and sums of squares."""
    images_active: np.ndarray
    """[K] images in which the concept fires."""


class DictionaryReport(NamedTuple):
    """What was measured of an atlas's dictionary (`engine.dictionary.evaluation.report` says how)."""

    summary: dict[str, Any]
    """tokens, r2, fvu, l0, l0_counts (tokens with 0, 1, ... active concepts), dead_share, coherence (mean), hull
    (distance: mean, uncertainty, points, own_points) and stability (mean and pairs, or None)."""
    concepts: pd.DataFrame
    """Indexed by concept: fires (tokens), frequency (share of tokens), coherence (largest |cosine| to another atom),
    nearest (that atom), hull_distance (share of the data's radius), stability (NaN when it was not measured)."""


class Pieces:
    """The parts of one atlas, each loaded once, when it is first asked for; safe to share between threads.

    What it returns is shared too: callers copy before they change it.
    """

    def __init__(self, root: Path, info: AtlasInfo) -> None:
        self._root, self._info = root, info
        self._kept: dict[str, Any] = {}
        self._lock = threading.RLock()

    def _keep(self, key: str, load: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = load()
            return self._kept[key]

    @property
    def concepts(self) -> pd.DataFrame:
        """`concepts.parquet` indexed by concept."""
        return self._keep("concepts", lambda: load_concepts(self._root, self._info))

    @property
    def links(self) -> RankedTable:
        """Per source and concept, the addresses of its published images."""
        names = [source.name for source in self._info.sources]
        return self._ranked("links", "source", names, ("rank", "of", "url"))

    @property
    def link_hosts(self) -> tuple[str, ...]:
        """The hosts that `links` point to."""
        return self._keep("link_hosts", lambda: hosts(read_table(self._root, "links")["url"].unique().to_pylist()))

    @property
    def published(self) -> pd.DataFrame:
        """`published.parquet` indexed by concept."""
        return self._keep("published", lambda: load_published(self._root, self._info))

    def table(self, name: str) -> pa.Table:
        """The whole table `name`."""
        return self._keep(f"table {name}", lambda: read_table(self._root, name))

    @property
    def images(self) -> pd.DataFrame:
        """`images.parquet` indexed by image."""
        return self._keep("images", lambda: load_images(self._root, self._info))

    @property
    def labels(self) -> pd.DataFrame | None:
        """`labels.parquet`, or None when the atlas has none."""
        if not (self._root / schema.table_file("labels")).is_file():
            return None
        return self._keep("labels", lambda: read_table(self._root, "labels").to_pandas())

    @property
    def report(self) -> DictionaryReport | None:
        """What was measured of the dictionary, or None when the atlas has no report."""
        if not (self._root / schema.REPORT).is_file():
            return None
        return self._keep("report", lambda: load_report(self._root, self._info))

    @property
    def energies(self) -> dict[str, Measured]:
        """Per source, its moments."""
        return self._keep("energies", lambda: load_energies(self._root, self._info))

    @property
    def standard_errors(self) -> dict[str, np.ndarray]:
        """Per model, the standard error of the gap [K]."""
        return self._keep("delta", lambda: load_standard_errors(self._root, self._info))

    @property
    def exemplars(self) -> RankedTable:
        """Per source and concept, its best images."""
        names = [source.name for source in self._info.sources]
        return self._ranked("exemplars", "source", names, ("rank", "image", "score"))

    @property
    def neighbours(self) -> RankedTable:
        """Per kind and concept, its closest others."""
        return self._ranked("neighbours", "kind", schema.NEIGHBOUR_KINDS, ("other", "value"))

    def _ranked(self, name: str, group: str, groups: Sequence[str], columns: Sequence[str]) -> RankedTable:
        count = self._info.concepts
        return self._keep(
            name, lambda: RankedTable(image_table(self._root, name, self._info), group, groups, columns, count)
        )

    @property
    def search(self) -> ConceptSearch:
        """The index over labels and words."""
        frame = self.concepts
        return self._keep("search", lambda: ConceptSearch(frame["label"].tolist(), frame["words"].tolist()))

    @property
    def image_index(self) -> ImageIndex:
        """The index over image embeddings."""
        return self._keep("images.faiss", lambda: ImageIndex(self._root, self._info.images))

    def matrix(self, kind: str, source: str) -> CSR:
        """The memory-mapped matrix `codes/<source>` or `energy/<source>`."""
        rel = f"{kind}/{source}"
        return self._keep(rel, lambda: CSR.open(self._root / rel, self._info.concepts))


def load_concepts(root: Path, info: AtlasInfo) -> pd.DataFrame:
    """`concepts.parquet` indexed by concept 0 .. K - 1; words are lists of str, a missing label is the empty string."""
    table = read_table(root, "concepts")
    _expect_ids(root, "concepts", table["concept"], info.concepts)
    frame = table.drop_columns(["concept", "words"]).to_pandas()
    frame.insert(5, "words", pd.Series([words or [] for words in table["words"].to_pylist()], dtype=object))
    frame[["label", "label_origin"]] = frame[["label", "label_origin"]].fillna("")
    frame.index = pd.RangeIndex(info.concepts, name="concept")
    return frame


def load_report(root: Path, info: AtlasInfo) -> DictionaryReport:
    """`dictionary/report.json` and `dictionary/report.parquet`."""
    table = read_table(root, schema.REPORT_TABLE)
    _expect_ids(root, schema.REPORT_TABLE, table["concept"], info.concepts)
    frame = table.drop_columns(["concept"]).to_pandas()
    try:
        summary = json.loads((root / schema.REPORT).read_text(encoding="utf-8"))
        frame.insert(1, "frequency", frame["fires"] / summary["tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(root / schema.REPORT, error) from error
    frame.index = pd.RangeIndex(info.concepts, name="concept")
    return DictionaryReport(summary, frame)


def image_table(root: Path, name: str, info: AtlasInfo) -> pa.Table:
    """Table `name`; an atlas of published statistics may lack those about images, which are then empty."""
    if info.published and name in schema.IMAGE_TABLES and not (root / schema.table_file(name)).exists():
        return schema.TABLES[name].empty_table()
    return read_table(root, name)


def load_published(root: Path, info: AtlasInfo) -> pd.DataFrame:
    """`published.parquet` indexed by concept 0 .. K - 1; NaN where a number was not published."""
    table = read_table(root, "published")
    _expect_ids(root, "published", table["concept"], info.concepts)
    frame = table.drop_columns(["concept"]).to_pandas()
    frame.index = pd.RangeIndex(info.concepts, name="concept")
    return frame


def hosts(urls: Iterable[str]) -> tuple[str, ...]:
    """The distinct hosts of `urls`, sorted."""
    return tuple(sorted({urlsplit(url).netloc for url in urls}))


def load_images(root: Path, info: AtlasInfo) -> pd.DataFrame:
    """`images.parquet` indexed by image 0 .. images - 1; a missing caption is the empty string."""
    table = image_table(root, "images", info)
    _expect_ids(root, "images", table["image"], info.images)
    frame = table.drop_columns(["image"]).to_pandas()
    frame["caption"] = frame["caption"].fillna("")
    frame.index = pd.RangeIndex(info.images, name="image")
    return frame


def load_energies(root: Path, info: AtlasInfo) -> dict[str, Measured]:
    """`energies.parquet` as arrays over concepts, per source."""
    table = read_table(root, "energies")
    measured = {}
    for source in info.sources:
        rows = _rows_of(root, "energies", table, "source", source.name, info.concepts)
        moments = Moments(source.images, rows["sum"].to_numpy(), rows["sum_sq"].to_numpy())
        measured[source.name] = Measured(moments, rows["images_active"].to_numpy())
    return measured


def load_standard_errors(root: Path, info: AtlasInfo) -> dict[str, np.ndarray]:
    """Standard error of the gap [K] per model, from `delta.parquet`."""
    table = read_table(root, "delta").select(["model", "concept", "se"])
    models = [source.name for source in info.sources if source.kind == "model"]
    return {name: _rows_of(root, "delta", table, "model", name, info.concepts)["se"].to_numpy() for name in models}


def _rows_of(root: Path, name: str, table: pa.Table, column: str, value: str, concepts: int) -> pa.Table:
    """The rows of one source or model, one per concept and in their order."""
    rows = table.filter(pc.equal(table[column], value)).sort_by("concept")
    _expect_ids(root, name, rows["concept"], concepts)
    return rows


def _expect_ids(root: Path, name: str, ids: pa.ChunkedArray, count: int) -> None:
    if not np.array_equal(ids.to_numpy(), np.arange(count)):
        raise damaged(root / schema.table_file(name), f"its ids are not 0 to {count - 1}, each once")
