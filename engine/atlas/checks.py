"""What must hold inside the files of an atlas, one function per kind of file; each yields its complaints.

A check stops after the first complaint that would make the next ones meaningless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.atlas import analysis_checks, published, schema
from engine.atlas.loading import load_report
from engine.atlas.schema import AtlasInfo
from engine.atlas.storage import CSR, damaged, read_table
from engine.blindspots.delta import ESTIMATORS
from engine.errors import BlindspotError

TableCheck = Callable[[pa.Table, AtlasInfo], Iterator[str]]


def header(info: AtlasInfo) -> Iterator[str]:
    """The delta defaults can be used."""
    if info.delta.estimator not in ESTIMATORS:
        yield f"the default estimator {info.delta.estimator!r} is unknown"
    if not info.delta.temperature > 0:
        yield f"the default temperature {info.delta.temperature} is not above zero"
    if not 0 <= info.delta.suppressed < info.delta.exaggerated <= 1:
        yield "the default thresholds are not 0 <= suppressed < exaggerated <= 1"


def exact_table(root: Path, name: str) -> pa.Table:
    """Table `name`; raises `BlindspotError` when it is missing, damaged, or its columns are not the schema's."""
    table = read_table(root, name)
    found = pq.read_schema(root / schema.table_file(name))
    if name in schema.LATER and not {*schema.LATER[name]} & {*found.names}:
        return table
    if not found.equals(schema.TABLES[name]):
        raise BlindspotError(f"its columns are {_columns(found)} instead of {_columns(schema.TABLES[name])}")
    return table


def _columns(found: pa.Schema) -> str:
    return ", ".join(f"{field.name}:{field.type}" for field in found)


def _concepts(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if not np.array_equal(table["concept"].to_numpy(), np.arange(info.concepts)):
        yield f"its concepts are not 0 to {info.concepts - 1} in order"
    off_the_map = table["dead"].to_numpy() & info.published
    for axis in ("x", "y"):
        if not (np.isfinite(table[axis].to_numpy()) | off_the_map).all():
            yield f"{axis} is not finite everywhere"


def _images(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if not np.array_equal(table["image"].to_numpy(), np.arange(info.images)):
        yield f"its images are not 0 to {info.images - 1} in order"
        return
    expected = np.repeat([source.name for source in info.sources], [source.images for source in info.sources])
    if not np.array_equal(table["source"].to_numpy(zero_copy_only=False), expected):
        yield "its images are not grouped by source in the order of the header"
        return
    pair = table["pair"].to_numpy()
    own = {source.name: pair[list(info.image_range(source.name))] for source in info.sources}
    real = own[schema.REAL][own[schema.REAL] >= 0]
    if len(np.unique(real)) != len(real):
        yield "two real images share a pair"
    for source in info.sources[1:]:
        pairs = own[source.name][own[source.name] >= 0]
        if not np.isin(pairs, real).all():
            yield f"an image of {source.name!r} is in a pair that has no real image"
        if source.paired != bool(len(pairs)):
            yield f"the header says {'paired' if source.paired else 'unpaired'} of {source.name!r}, the table does not"


def _per_concept(table: pa.Table, column: str, names: list[str], concepts: int) -> Iterator[str]:
    key = table[column].to_numpy(zero_copy_only=False)
    concept = table["concept"].to_numpy()
    if unknown := sorted(set(key) - set(names)):
        yield f"{unknown[0]!r} is no {column} of this atlas"
    for name in names:
        if not np.array_equal(np.sort(concept[key == name]), np.arange(concepts)):
            yield f"{name!r} does not have each concept once"


def _energies(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _per_concept(table, "source", [source.name for source in info.sources], info.concepts)
    if info.published:
        yield from published.energies(table)
        return
    known = {source.name: source.images for source in info.sources}
    expected = np.array([known.get(name, -1) for name in table["source"].to_pylist()])
    images = table["images"].to_numpy()
    if not np.array_equal(images, expected):
        yield "its numbers of images are not the header's"
    total, squares, active = (table[column].to_numpy() for column in ("sum", "sum_sq", "images_active"))
    if not (np.isfinite(total).all() and np.isfinite(squares).all() and (total >= 0).all()):
        yield "an energy is negative or not finite"
    elif (total**2 > active * squares * (1 + 1e-9)).any():
        yield "a sum, its sum of squares and its number of active images cannot belong together"
    if (active > images).any() or (table["fires"].to_numpy() < active).any():
        yield "a concept is active in more images than there are, or than it has codes"


def _delta(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    models = [source.name for source in info.sources if source.kind == "model"]
    yield from _per_concept(table, "model", models, info.concepts)
    if info.published:
        yield from published.delta(table)
        return
    for column in ("delta", "ci_low", "ci_high", "p", "q"):
        values = table[column].to_numpy()
        if not ((values >= 0) & (values <= 1)).all():
            yield f"{column} is not between 0 and 1 everywhere"
    low, delta, high = (table[column].to_numpy() for column in ("ci_low", "delta", "ci_high"))
    if not ((low <= delta) & (delta <= high)).all():
        yield "a delta lies outside its interval"
    if not (table["se"].to_numpy() >= 0).all():
        yield "a standard error is negative or missing"


def _ranked(table: pa.Table, group: str, value: str) -> Iterator[str]:
    """Each list has ranks 0, 1, ... and does not rise in value."""
    frame = table.select([group, "concept", "rank", value]).to_pandas().sort_values([group, "concept", "rank"])
    lists = frame.groupby([group, "concept"], sort=False)
    if not (frame["rank"] == lists.cumcount()).all():
        yield "the ranks of a list are not 0, 1, 2, ..."
    elif (lists[value].diff() > 0).any():
        yield f"a list is not sorted by falling {value}"


def _exemplars(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    image, source = table["image"].to_numpy(), table["source"].to_numpy(zero_copy_only=False)
    ranges = {one.name: info.image_range(one.name) for one in info.sources}
    for name in sorted(set(source)):
        own = image[source == name]
        within = ranges.get(name, range(0))
        if ((own < within.start) | (own >= within.stop)).any():
            yield f"an exemplar of {name!r} is no image of it"
    if not _within(table["concept"], info.concepts):
        yield "an exemplar's concept does not exist"
    yield from _ranked(table, "source", "score")


def _neighbours(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if unknown := sorted(set(table["kind"].to_pylist()) - set(schema.NEIGHBOUR_KINDS)):
        yield f"{unknown[0]!r} is no kind of neighbour"
    if not (_within(table["concept"], info.concepts) and _within(table["other"], info.concepts)):
        yield "a concept or its neighbour does not exist"
    if (table["concept"].to_numpy() == table["other"].to_numpy()).any():
        yield "a concept is its own neighbour"
    yield from _ranked(table, "kind", "value")


def _labels(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if not _within(table["image"], info.images):
        yield "a label's image does not exist"


def _gallery(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if not _within(table["concept"], info.concepts):
        yield "a drawn concept does not exist"
    frame = table.select(["concept", "rank"]).to_pandas().sort_values(["concept", "rank"])
    if not (frame["rank"] == frame.groupby("concept").cumcount()).all():
        yield "the images of a concept are not 0, 1, 2, ..."


def _report(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if not np.array_equal(table["concept"].to_numpy(), np.arange(info.concepts)):
        yield f"its concepts are not 0 to {info.concepts - 1} in order"
    if not _within(table["nearest"], info.concepts):
        yield "a concept's nearest other does not exist"
    for column, low, high in (("coherence", 0, 1), ("hull_distance", 0, np.inf), ("stability", -1, 1)):
        values = table[column].drop_null().to_numpy()
        if not ((values >= low - 1e-5) & (values <= high + 1e-5)).all():
            yield f"{column} is not between {low} and {high} everywhere"
    if (table["fires"].to_numpy() < 0).any():
        yield "a concept fires less than never"


def report_agrees(root: Path, info: AtlasInfo) -> Iterator[str]:
    """The numbers of `dictionary/report.json` are those of its table; an atlas without the report is fine."""
    if not (root / schema.REPORT).exists() and not (root / schema.table_file(schema.REPORT_TABLE)).exists():
        return
    summary, concepts = load_report(root, info)
    tokens, counts = summary["tokens"], np.asarray(summary["l0_counts"])
    fires = int(concepts["fires"].sum())
    if counts.sum() != tokens or (np.arange(len(counts)) * counts).sum() != fires:
        yield "its L0 histogram, its tokens and the table's fires do not belong together"
    expected = {
        "fvu": 1 - summary["r2"],
        "l0": fires / tokens,
        "dead_share": (concepts["fires"] == 0).mean(),
        "coherence": concepts["coherence"].mean(),
        "hull": concepts["hull_distance"].mean(),
    }
    found = summary | {"hull": summary["hull"]["distance"]}
    for name, value in expected.items():
        if not np.isclose(found[name], value, atol=1e-4):
            yield f"its {name} is {found[name]} where the table has {value:.6f}"
    if (summary["stability"] is None) != concepts["stability"].isna().all():
        yield "only one of the two files knows the stability"


def _within(ids: pa.ChunkedArray, count: int) -> bool:
    values = ids.to_numpy()
    return bool(((values >= 0) & (values < count)).all())


TABLES: dict[str, TableCheck] = {
    "concepts": _concepts,
    "energies": _energies,
    "delta": _delta,
    "images": _images,
    "exemplars": _exemplars,
    "neighbours": _neighbours,
    "labels": _labels,
    "links": published.links,
    "published": published.numbers,
    "gallery": _gallery,
    "divergence": analysis_checks.divergence,
    "changes": analysis_checks.changes,
    "metrics": analysis_checks.metrics,
    schema.REPORT_TABLE: _report,
}


def matrix(folder: Path, info: AtlasInfo, rel: str) -> Iterator[str]:
    """A CSR folder `codes/<source>` or `energy/<source>` is well formed: order, range, sign, dtypes and rows."""
    kind, source = rel.split("/")
    stored = CSR.open(folder, info.concepts)
    dtypes = (stored.indptr.dtype, stored.indices.dtype, stored.values.dtype)
    if dtypes != (np.int64, stored.indices.dtype, schema.CSR_VALUES[kind]) or dtypes[1] not in (np.uint16, np.uint32):
        yield f"its dtypes are {', '.join(map(str, dtypes))}"
        return
    rows = info.source(source).images * (info.tokens if kind == "codes" else 1)
    if stored.shape[0] != rows:
        yield f"it has {stored.shape[0]} rows instead of {rows}"
    if stored.indptr[0] != 0 or (np.diff(stored.indptr) < 0).any():
        yield "its row pointers do not rise from 0"
        return
    if len(stored.indices) and int(stored.indices.max()) >= info.concepts:
        yield f"it names concept {int(stored.indices.max())} of {info.concepts}"
    rising = stored.indices[1:] > stored.indices[:-1]
    starts = stored.indptr[1:-1]
    rising[starts[(starts > 0) & (starts < len(stored.indices))] - 1] = True
    if not rising.all():
        yield "the concepts of a row do not rise"
    if not (np.isfinite(stored.values) & (stored.values > 0)).all():
        yield "a value is not a finite number above zero"


def energies_agree(root: Path, info: AtlasInfo, source: str) -> Iterator[str]:
    """The moments in `energies.parquet` are those of the stored image energies."""
    stored = CSR.open(root / "energy" / source, info.concepts)
    table = read_table(root, "energies")
    rows = table.filter(pc.equal(table["source"], source)).sort_by("concept")
    total = np.bincount(stored.indices, stored.values.astype(np.float64), minlength=info.concepts)
    if total.shape != (info.concepts,) or rows.num_rows != info.concepts:
        return
    if not np.allclose(total, rows["sum"].to_numpy(), rtol=1e-5, atol=1e-8):
        yield "its energies do not add up to the sums in energies.parquet"
    if not np.array_equal(np.bincount(stored.indices, minlength=info.concepts), rows["images_active"].to_numpy()):
        yield "its active images are not those in energies.parquet"


def thumbs(root: Path, images: int) -> Iterator[str]:
    """Every image has a thumbnail, and each is a webp file."""
    yield from pictures(root, "thumbnails", (schema.thumb_file(image) for image in range(images)))


def pictures(root: Path, what: str, files: Iterable[str]) -> Iterator[str]:
    """Each of these files is there and is a webp picture."""
    missing, foreign = [], []
    for rel in files:
        path = root / rel
        try:
            with path.open("rb") as file:
                start = file.read(12)
        except OSError:
            missing.append(path.name)
            continue
        if start[:4] != b"RIFF" or start[8:] != b"WEBP":
            foreign.append(path.name)
    if missing:
        yield f"{len(missing)} {what} are missing, the first is {missing[0]}"
    if foreign:
        yield f"{len(foreign)} {what} are no webp pictures, the first is {foreign[0]}"


def gallery(root: Path) -> Iterator[str]:
    """The images that `gallery.parquet` names are there; an atlas without it is fine."""
    if (root / schema.table_file("gallery")).exists():
        table = read_table(root, "gallery")
        named = zip(table["concept"].to_pylist(), table["rank"].to_pylist(), strict=True)
        yield from pictures(root, "drawn images", (schema.gallery_file(*one) for one in named))


def index(path: Path, rows: int) -> Iterator[str]:
    """A FAISS index holds one vector per row; an atlas without the index is fine."""
    import faiss

    if not path.exists():
        return
    try:
        total = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC).ntotal
    except RuntimeError as error:
        raise damaged(path, "FAISS cannot read it") from error
    if total != rows:
        yield f"it holds {total} vectors instead of {rows}"
