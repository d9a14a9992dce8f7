"""Loads the parts of an atlas into the shape that the reader answers from: arrays per source, frames per id."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from engine.atlas import schema
from engine.atlas.schema import AtlasInfo
from engine.atlas.search import ConceptSearch, ImageIndex
from engine.atlas.storage import CSR, RankedTable, damaged, parsing, read_document, read_table
from engine.blindspots.significance import Moments
from engine.errors import BlindspotError

Part = TypeVar("Part")


class Measured(NamedTuple):
    """What `energies.parquet` says of one source."""

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
        self._opened = header_state(root)
        self._lock = threading.RLock()

    def _keep(self, key: str, load: Callable[[], Part]) -> Part:
        with self._lock:
            if key not in self._kept:
                found = load()
                self.require_same()
                self._kept[key] = found
            return self._kept[key]

    def require_same(self) -> None:
        """Raise `BlindspotError` if the atlas was replaced since it was opened: its parts would not fit together."""
        if header_state(self._root) != self._opened:
            raise BlindspotError(f"The atlas {self._root} was rebuilt while it was open: open it again.")

    @property
    def concepts(self) -> pd.DataFrame:
        """`concepts.parquet` indexed by concept."""
        return self._keep("concepts", lambda: load_concepts(self._root, self._info))

    @property
    def images(self) -> pd.DataFrame:
        """`images.parquet` indexed by image."""
        return self._keep("images", lambda: load_images(self._root, self._info))

    @property
    def published(self) -> pd.DataFrame:
        """`published.parquet` indexed by concept; NaN where a number was not published."""
        return self._keep(
            "published", lambda: _by_id(self._root, "published", read_table(self._root, "published"), self._info)
        )

    @property
    def report(self) -> DictionaryReport:
        """What was measured of the dictionary."""
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
        return self._ranked("exemplars", "source", self._sources, ("rank", "image", "score"))

    @property
    def links(self) -> RankedTable:
        """Per source and concept, the addresses of its published images."""
        return self._ranked("links", "source", self._sources, ("rank", "of", "url"))

    @property
    def neighbours(self) -> RankedTable:
        """Per kind and concept, its closest others."""
        return self._ranked("neighbours", "kind", schema.NEIGHBOUR_KINDS, ("other", "value"))

    @property
    def link_hosts(self) -> tuple[str, ...]:
        """The hosts that `links` point to, sorted."""
        urls = self.table("links")["url"]
        return self._keep("hosts", lambda: tuple(sorted({urlsplit(url).netloc for url in urls.unique().to_pylist()})))

    @property
    def search(self) -> ConceptSearch:
        """The index over labels and words."""
        frame = self.concepts
        return self._keep("search", lambda: ConceptSearch(frame["label"].tolist(), frame["words"].tolist()))

    @property
    def image_index(self) -> ImageIndex:
        """The index over image embeddings."""
        return self._keep("images.faiss", lambda: ImageIndex(self._root, self._info.images))

    def table(self, name: str) -> pa.Table:
        """The whole table `name`."""
        return self._keep(f"table {name}", lambda: read_table(self._root, name))

    def matrix(self, kind: str, source: str) -> CSR:
        """The memory-mapped matrix `codes/<source>` or `energy/<source>`."""
        rel = f"{kind}/{source}"
        return self._keep(rel, lambda: CSR.open(self._root / rel, self._info.concepts, self._root))

    @property
    def _sources(self) -> list[str]:
        return [source.name for source in self._info.sources]

    def _ranked(self, name: str, group: str, groups: Sequence[str], columns: Sequence[str]) -> RankedTable:
        count = self._info.concepts
        return self._keep(
            name, lambda: RankedTable(_image_table(self._root, name, self._info), group, groups, columns, count)
        )


def header_state(root: Path) -> tuple[int, ...]:
    """What changes when another header takes the place of the one at `root`."""
    try:
        found = (root / schema.HEADER).stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def load_concepts(root: Path, info: AtlasInfo) -> pd.DataFrame:
    """`concepts.parquet` indexed by concept 0 .. K - 1, with the labels of `concept_labels`; a missing one is empty."""
    table = read_table(root, "concepts")
    frame = _by_id(root, "concepts", table, info)
    frame["words"] = pd.Series([words or [] for words in table["words"].to_pylist()], dtype=object)
    frame[["label", "label_origin"]] = frame[["label", "label_origin"]].fillna("")
    if (root / schema.table_file("concept_labels")).is_file():
        later = read_table(root, "concept_labels").to_pandas().drop_duplicates("concept").set_index("concept")
        later = later[later.index.isin(frame.index)].fillna("")
        frame.loc[later.index, ["label", "label_origin"]] = later[["label", "origin"]].to_numpy()
    return frame


def load_images(root: Path, info: AtlasInfo) -> pd.DataFrame:
    """`images.parquet` indexed by image 0 .. images - 1; a missing caption is the empty string."""
    frame = _by_id(root, "images", _image_table(root, "images", info), info)
    frame["caption"] = frame["caption"].fillna("")
    return frame


def load_report(root: Path, info: AtlasInfo) -> DictionaryReport:
    """`dictionary/report.json` and `dictionary/report.parquet`."""
    frame = _by_id(root, schema.REPORT_TABLE, read_table(root, schema.REPORT_TABLE), info)
    summary = read_document(root, schema.REPORT)
    with parsing(root / schema.REPORT):
        frame.insert(1, "frequency", frame["fires"] / summary["tokens"])
    return DictionaryReport(summary, frame)


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
    """Standard error of the gap [K] per model, from `delta.parquet`; infinite where nothing is known of it."""
    table = read_table(root, "delta").select(["model", "concept", "se"])
    models = [source.name for source in info.sources if source.kind == "model"]
    found = {name: _rows_of(root, "delta", table, "model", name, info.concepts)["se"].to_numpy() for name in models}
    return found if info.published else {name: np.where(np.isnan(se), np.inf, se) for name, se in found.items()}


def _image_table(root: Path, name: str, info: AtlasInfo) -> pa.Table:
    """Table `name`; an atlas of published statistics may lack those about images, which are then empty."""
    if info.published and name in schema.IMAGE_TABLES and not (root / schema.table_file(name)).exists():
        return schema.TABLES[name].empty_table()
    return read_table(root, name)


def _by_id(root: Path, name: str, table: pa.Table, info: AtlasInfo) -> pd.DataFrame:
    """A table with one row per concept or image, indexed by it."""
    key = "image" if name == "images" else "concept"
    count = info.images if name == "images" else info.concepts
    _expect_ids(root, name, table[key], count)
    frame = table.drop_columns([key]).to_pandas()
    frame.index = pd.RangeIndex(count, name=key)
    return frame


def _rows_of(root: Path, name: str, table: pa.Table, column: str, value: str, concepts: int) -> pa.Table:
    """The rows of one source or model, one per concept and in their order."""
    rows = table.filter(pc.equal(table[column], value)).sort_by("concept")
    _expect_ids(root, name, rows["concept"], concepts)
    return rows


def _expect_ids(root: Path, name: str, ids: pa.ChunkedArray, count: int) -> None:
    if len(ids) != count or not np.array_equal(ids.to_numpy(), np.arange(count)):
        raise damaged(root / schema.table_file(name), f"its ids are not 0 to {count - 1}, each once")
