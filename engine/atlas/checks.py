"""What must hold inside the tables of an atlas, one function per table; each yields its complaints.

A check stops after the first complaint that would make the next ones meaningless. In an atlas of published statistics
what was not published must be null, not a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.atlas import schema
from engine.atlas.schema import REAL, AtlasInfo
from engine.atlas.storage import read_table
from engine.blindspots.delta import ESTIMATORS
from engine.blindspots.elicitation import VERDICTS
from engine.errors import BlindspotError

TableCheck = Callable[[pa.Table, AtlasInfo], Iterator[str]]
SPACES = ("encoder", "concepts")
NEED_IMAGES = ("sum_sq", "max", "fires", "images_active")
"""Columns of `energies` that published statistics cannot have."""
NEED_SPREAD = ("se", "ci_low", "ci_high", "p", "q")
"""Columns of `delta` that published statistics cannot have."""


def delta_settings(info: AtlasInfo) -> Iterator[str]:
    """The delta settings can be used."""
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
    missing = {*schema.LATER.get(name, ())} - {*found.names}
    if not found.equals(pa.schema([field for field in schema.TABLES[name] if field.name not in missing])):
        raise BlindspotError(f"its columns are {_columns(found)} instead of {_columns(schema.TABLES[name])}")
    return table


def _columns(found: pa.Schema) -> str:
    return ", ".join(f"{field.name}:{field.type}" for field in found)


def _in_order(table: pa.Table, column: str, count: int) -> Iterator[str]:
    if len(table) != count or not np.array_equal(table[column].to_numpy(), np.arange(count)):
        yield f"its {column}s are not 0 to {count - 1} in order"


def _exists(table: pa.Table, columns: Iterable[str], count: int, what: str) -> Iterator[str]:
    ids = np.concatenate([table[column].to_numpy() for column in columns])
    if ((ids < 0) | (ids >= count)).any():
        yield f"{what} does not exist"


def _known(values: Iterable[str], names: Collection[str], what: str) -> Iterator[str]:
    if unknown := sorted(set(values) - set(names)):
        yield f"{unknown[0]!r} is no {what}"


def between(values: Any, name: str, low: float, high: float, slack: float = 1e-5) -> Iterator[str]:
    values = np.asarray(values, np.float64)
    if not ((values >= low - slack) & (values <= high + slack)).all():
        yield f"{name} is not between {low} and {high} everywhere"


def _null(table: pa.Table, columns: Iterable[str]) -> Iterator[str]:
    for column in columns:
        if table[column].null_count != table.num_rows:
            yield f"{column} is filled in, though nobody published it"


def _models(info: AtlasInfo) -> list[str]:
    return [source.name for source in info.sources[1:]]


def _concepts(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _in_order(table, "concept", info.concepts)
    off_the_map = table["dead"].to_numpy() & info.published
    for axis in ("x", "y"):
        if not (np.isfinite(table[axis].to_numpy()) | off_the_map).all():
            yield f"{axis} is not finite everywhere"


def _images(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    if complaints := list(_in_order(table, "image", info.images)):
        yield from complaints
        return
    expected = np.repeat([source.name for source in info.sources], [source.images for source in info.sources])
    if not np.array_equal(table["source"].to_numpy(), expected):
        yield "its images are not grouped by source in the order of the header"
        return
    pair = table["pair"].to_numpy()
    own = {source.name: pair[list(info.image_range(source.name))] for source in info.sources}
    real = own[REAL][own[REAL] >= 0]
    if len(np.unique(real)) != len(real):
        yield "two real images share a pair"
    for source in info.sources[1:]:
        pairs = own[source.name][own[source.name] >= 0]
        if not np.isin(pairs, real).all():
            yield f"an image of {source.name!r} is in a pair that has no real image"
        if source.paired != bool(len(pairs)):
            yield f"the header says {'paired' if source.paired else 'unpaired'} of {source.name!r}, the table does not"


def _per_concept(table: pa.Table, column: str, names: list[str], concepts: int) -> Iterator[str]:
    key, concept = table[column].to_numpy(), table["concept"].to_numpy()
    yield from _known(key, names, f"{column} of this atlas")
    for name in names:
        own = np.sort(concept[key == name])
        if len(own) != concepts or not np.array_equal(own, np.arange(concepts)):
            yield f"{name!r} does not have each concept once"


def _energies(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _per_concept(table, "source", [source.name for source in info.sources], info.concepts)
    images = table["images"].to_numpy()
    if info.published:
        mean = table["sum"].drop_null().to_numpy()
        if not (np.isfinite(mean) & (mean >= 0)).all():
            yield "an energy is negative or not finite"
        if (images != 0).any():
            yield "published statistics have a number of images"
        yield from _null(table, NEED_IMAGES)
        return
    known = {source.name: source.images for source in info.sources}
    if not np.array_equal(images, [known.get(name, -1) for name in table["source"].to_pylist()]):
        yield "its numbers of images are not the header's"
    total, squares, active = (table[column].to_numpy() for column in ("sum", "sum_sq", "images_active"))
    if not (np.isfinite(total).all() and np.isfinite(squares).all() and (total >= 0).all()):
        yield "an energy is negative or not finite"
    elif (total**2 > active * squares * (1 + 1e-9)).any():
        yield "a sum, its sum of squares and its number of active images cannot belong together"
    if (active > images).any() or (table["fires"].to_numpy() < active).any():
        yield "a concept is active in more images than there are, or than it has codes"


def _delta(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _per_concept(table, "model", _models(info), info.concepts)
    if info.published:
        yield from between(table["delta"].drop_null(), "delta", 0, 1, slack=0)
        yield from _null(table, NEED_SPREAD)
        return
    for column in ("delta", "ci_low", "ci_high", "p", "q"):
        yield from between(table[column], column, 0, 1, slack=0)
    low, delta, high = (table[column].to_numpy() for column in ("ci_low", "delta", "ci_high"))
    if not ((low <= delta) & (delta <= high)).all():
        yield "a delta lies outside its interval"
    se = table["se"].to_numpy()  # missing where one image, or images without spread, say nothing of it
    if (se < 0).any() or (np.isnan(se) & (table["q"].to_numpy() < 1)).any():
        yield "a standard error is negative or missing, though a q is below 1"


def _ranked(table: pa.Table, group: str, value: str) -> Iterator[str]:
    """Each list has ranks 0, 1, ... and does not rise in value."""
    frame = table.select([group, "concept", "rank", value]).to_pandas().sort_values([group, "concept", "rank"])
    lists = frame.groupby([group, "concept"], sort=False)
    if not (frame["rank"] == lists.cumcount()).all():
        yield "the ranks of a list are not 0, 1, 2, ..."
    elif (lists[value].diff() > 0).any():
        yield f"a list is not sorted by falling {value}"


def _exemplars(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    image, source = table["image"].to_numpy(), table["source"].to_numpy()
    ranges = {one.name: info.image_range(one.name) for one in info.sources}
    for name in sorted(set(source)):
        own, within = image[source == name], ranges.get(name, range(0))
        if ((own < within.start) | (own >= within.stop)).any():
            yield f"an exemplar of {name!r} is no image of it"
    yield from _exists(table, ["concept"], info.concepts, "an exemplar's concept")
    yield from _ranked(table, "source", "score")


def _neighbours(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _known(table["kind"].to_pylist(), schema.NEIGHBOUR_KINDS, "kind of neighbour")
    yield from _exists(table, ["concept", "other"], info.concepts, "a concept or its neighbour")
    if (table["concept"].to_numpy() == table["other"].to_numpy()).any():
        yield "a concept is its own neighbour"
    yield from _ranked(table, "kind", "value")


def _labels(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _exists(table, ["image"], info.images, "a label's image")


def _links(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Links are web addresses of images of the atlas's sources and concepts."""
    named = [*table["source"].unique().to_pylist(), *table["of"].unique().to_pylist()]
    yield from _known(named, [source.name for source in info.sources], "source of this atlas")
    yield from _exists(table, ["concept"], info.concepts, "a link's concept")
    for url in table["url"].unique().to_pylist():
        if not schema.web_address(url):
            yield f"{url!r} is no web address"
            return


def _provenance(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Rows are of images of the atlas, one each."""
    yield from _exists(table, ["image"], info.images, "an image with provenance")
    if len(table["image"].unique()) != len(table):
        yield "an image has two rows"


def _published(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _in_order(table, "concept", info.concepts)


def _gallery(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _exists(table, ["concept"], info.concepts, "a drawn concept")
    frame = table.select(["concept", "rank"]).to_pandas().sort_values(["concept", "rank"])
    if not (frame["rank"] == frame.groupby("concept").cumcount()).all():
        yield "the images of a concept are not 0, 1, 2, ..."


def _recognition(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """A concept has at most one label, with numbers that can be, and the header says who judges."""
    concepts = table["concept"].to_numpy()
    yield from _exists(table, ["concept"], info.concepts, "a recognised concept")
    if (np.diff(concepts) <= 0).any():
        yield "its concepts do not rise"
    if any(not label for label in table["label"].to_pylist()):
        yield "a label is empty"
    for column in ("precision", "threshold", "real_share"):
        yield from between(table[column].drop_null(), column, 0, 1)
    if (table["n"].to_numpy() < 1).any():
        yield "a label is shown by no image"
    if info.judge is None or "id" not in info.judge:
        yield "the header names no judge"


def _fooling(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """A concept was attacked by each method once at most, with numbers that can be."""
    yield from _exists(table, ["concept"], info.concepts, "a fooled concept")
    if table.select(["concept", "method"]).to_pandas().duplicated().any():
        yield "a method stands twice beside one concept"
    yield from between(table["reference_score"].drop_null(), "reference_score", 0, np.inf)
    if any((table[column].to_numpy() < 1).any() for column in ("steps", "seeds")):
        yield "an image was made in no step, or none was made"


def _concept_labels(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """A concept has at most one label, which is short plain text, with scores that can be."""
    yield from _exists(table, ["concept"], info.concepts, "a labelled concept")
    if (np.diff(table["concept"].to_numpy()) <= 0).any():
        yield "its concepts do not rise"
    for column, most in (("label", schema.LABEL_LENGTH), ("description", schema.DESCRIPTION_LENGTH)):
        texts = [text for text in table[column].to_pylist() if text]
        if column == "label" and len(texts) < table.num_rows:
            yield "a label is empty"
        if any(len(text) > most or not text.isprintable() for text in texts):
            yield f"a {column} is longer than {most} characters, or has control characters"
    if not all(table["origin"].to_pylist()):
        yield "a label has no origin"
    for column in ("confidence", "score", "score_low", "score_high", "fuzzing"):
        yield from between(table[column].drop_null(), column, 0, 1)


def _stress(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """A concept was tested once in a model, with counts, shares and a verdict that can be."""
    frame = table.to_pandas()
    yield from _exists(table, ["concept"], info.concepts, "a tested concept")
    yield from _known(frame["model"], _models(info), "model of this atlas")
    yield from _known(frame["against"], [source.name for source in info.sources], "source of this atlas")
    yield from _known(frame["verdict"], VERDICTS, "verdict")
    if frame.duplicated(["concept", "model"]).any():
        yield "a concept was tested twice in one model"
    for part, whole in (("shown", "images"), ("prompts_shown", "prompts"), ("recognised", "judged")):
        if not ((frame[part] >= 0) & (frame[part] <= frame[whole])).all():
            yield f"{part} is less than none or more than {whole}"
    shares = ("prompts_low", "prompts_high", "rate", "ci_low", "ci_high", "control", "real_rate", "real_control", "p")
    for column in (*shares, "q"):
        yield from between(frame[column].dropna(), column, 0, 1)


def _report(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    yield from _in_order(table, "concept", info.concepts)
    yield from _exists(table, ["nearest"], info.concepts, "a concept's nearest other")
    for column, low, high in (("coherence", 0, 1), ("hull_distance", 0, np.inf), ("stability", -1, 1)):
        yield from between(table[column].drop_null(), column, low, high)
    if (table["fires"].to_numpy() < 0).any():
        yield "a concept fires less than never"


def _divergence(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Every paired model has its pairs once, and every number can be what it says."""
    frame = table.to_pandas()
    paired = {source.name for source in info.sources[1:] if source.paired}
    if found := sorted(set(frame["model"]) ^ paired):
        yield f"{found[0]!r} is no paired model of this atlas, or is one and is missing"
        return
    for model, rows in frame.groupby("model"):
        if rows["pair"].duplicated().any():
            yield f"a pair of {model!r} is there twice"
        if not rows["image"].isin(info.image_range(model)).all():
            yield f"an image is none of {model!r}"
    for column in ("real_image", "nearest_real"):
        if not frame[column].isin(info.image_range(REAL)).all():
            yield f"a {column} is no real image"
    for column, low, high in (
        ("l2", 0, np.inf),
        ("mean_delta", 0, 1),
        ("nearest_real_similarity", -1, 1),
        ("p", 0, 1),
    ):
        yield from between(frame[column], column, low, high)


def _changes(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Pairs of two different concepts with counts, cosines and p-values that can be."""
    frame = table.to_pandas()
    yield from _known(frame["model"], _models(info), "model of this atlas")
    first, second = frame["first"], frame["second"]
    if not ((first >= 0) & (first < second) & (second < info.concepts)).all():
        yield "a pair is not of two concepts in rising order"
    if frame.duplicated(["model", "first", "second"]).any():
        yield "a pair of concepts is there twice"
    for side in ("real", "model"):
        yield from between(frame[f"{side}_cosine"], f"{side}_cosine", 0, 1)
        images, tokens = frame[f"{side}_images"], frame[f"{side}_tokens"]
        if not ((images >= 0) & (images <= tokens)).all():
            yield f"a pair is in more images than tokens of the {side} source"
    for column in ("p", "p_adjusted"):
        yield from between(frame[column], column, 0, 1)
    if (frame["p_adjusted"] < frame["p"]).any():
        yield "an adjusted p is smaller than the p itself"


def _metrics(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """One row per model and space, and the halves; a number is in its range or missing."""
    frame = table.to_pandas()
    wanted = {(name, space) for name in (schema.HALVES, *_models(info)) for space in SPACES}
    found = list(zip(frame["model"], frame["space"], strict=True))
    if len(found) != len(wanted) or set(found) != wanted:
        yield "its rows are not one per model and space, and two for the real halves"
    for column in ("fid", "fid_mean", "fid_covariance", "fid_half", "density"):
        yield from between(frame[column].dropna(), column, 0, np.inf)
    for column in ("precision", "recall", "coverage"):
        yield from between(frame[column].dropna(), column, 0, 1)


TABLES: dict[str, TableCheck] = {
    "concepts": _concepts,
    "energies": _energies,
    "delta": _delta,
    "images": _images,
    "exemplars": _exemplars,
    "neighbours": _neighbours,
    "labels": _labels,
    "links": _links,
    "provenance": _provenance,
    "published": _published,
    "gallery": _gallery,
    "recognition": _recognition,
    "fooling": _fooling,
    "concept_labels": _concept_labels,
    "stress": _stress,
    "divergence": _divergence,
    "changes": _changes,
    "metrics": _metrics,
    schema.REPORT_TABLE: _report,
}
