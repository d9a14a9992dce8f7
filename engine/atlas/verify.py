"""Checks every file of an atlas: header, checksums, tables, matrices, thumbnails, and that they fit each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from engine.atlas import checks, schema
from engine.atlas.analyses import Analyses
from engine.atlas.checks import between
from engine.atlas.loading import load_report
from engine.atlas.reader import Atlas
from engine.atlas.schema import REAL, AtlasInfo, FileEntry
from engine.atlas.search import open_index
from engine.atlas.storage import CSR, files_below, manifest, parsing, read_document, read_table
from engine.blindspots.divergence import pair_divergence
from engine.errors import BlindspotError
from engine.files import regular_file

CONFIG, WEIGHTS = "dictionary/config.json", "dictionary/dictionary.safetensors"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an atlas."""

    file: str
    """The file or folder, relative to the atlas."""
    message: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def verify(path: str | os.PathLike[str]) -> list[Problem]:
    """Everything that is wrong with the atlas at `path`; empty when it is whole.

    Reads every byte once. Damage is reported, never raised: a missing, truncated or changed file, a row or image too
    few, codes out of order, a pair or an exemplar that points nowhere.
    """
    try:
        atlas = Atlas.open(path)
    except BlindspotError as error:
        return [Problem(schema.HEADER, str(error))]
    root, info = atlas.path, atlas.info
    return [
        *_files(root, info.files),
        *_run("atlas.json", partial(checks.delta_settings, info)),
        *(problem for name, check in checks.TABLES.items() for problem in _table(atlas, name, check)),
        *(problem for source in atlas.sources for problem in _source(atlas, source.name)),
        *_run(schema.REPORT, partial(_report_agrees, root, info)),
        *_run(schema.table_file("divergence"), partial(divergence_agrees, atlas)),
        *_run(schema.COMPOSITION, partial(composition, atlas)),
        *_run(WEIGHTS, partial(_weights, root, info)),
        *_run("thumbs/", partial(_thumbs, root, info.images)),
        *_run("gallery/", partial(_gallery, root)),
        *_run("stress/", partial(_stress, root)),
        *_run("images.faiss", partial(_index, root, "images.faiss", info.images)),
        *_run("atoms.faiss", partial(_index, root, "atoms.faiss", info.concepts)),
    ]


def _files(root: Path, listed: Mapping[str, FileEntry]) -> Iterator[Problem]:
    present = manifest(root)
    for rel in files_below(root)[1]:
        yield Problem(rel, "is a symbolic link or no regular file, and is not read: put a copy of the file there")
    for rel, entry in sorted(listed.items()):
        if not schema.contained(rel):
            yield Problem(schema.HEADER, f"lists {rel!r}, which lies outside the atlas")
        elif rel not in present:
            yield Problem(rel, "is listed in the header but missing")
        elif present[rel].bytes != entry.bytes:
            yield Problem(rel, f"has {present[rel].bytes} bytes instead of {entry.bytes}")
        elif present[rel].sha256 != entry.sha256:
            yield Problem(rel, "has another content than was written (its SHA-256 differs)")
        elif present[rel].rows != entry.rows:
            yield Problem(rel, f"has {present[rel].rows} rows instead of {entry.rows}")
    for rel in sorted(present.keys() - listed.keys()):
        yield Problem(rel, "is not listed in the header")


def _table(atlas: Atlas, name: str, check: checks.TableCheck) -> Iterable[Problem]:
    rel = schema.table_file(name)
    optional = schema.OPTIONAL_TABLES | (schema.IMAGE_TABLES if atlas.info.published else set())
    if name in optional and not (atlas.path / rel).exists():
        return ()
    return _run(rel, lambda: check(checks.exact_table(atlas.path, name), atlas.info))


def _source(atlas: Atlas, source: str) -> Iterator[Problem]:
    if atlas.info.published and not any(atlas.has(f"{kind}/{source}") for kind in schema.CSR_VALUES):
        return
    for kind in schema.CSR_VALUES:
        rel = f"{kind}/{source}"
        yield from _run(rel, partial(_matrix, atlas.path / rel, atlas.info, rel))
    yield from _run(f"energy/{source}", partial(_energies_agree, atlas.path, atlas.info, source))


def _run(file: str, check: Callable[[], Iterable[str]]) -> Iterator[Problem]:
    """The complaints of one check; an error while it runs is one more."""
    try:
        for message in check():
            yield Problem(file, message)
    except Exception as error:  # of a file that says what no check foresaw
        yield Problem(file, str(error) or type(error).__name__)


def _matrix(folder: Path, info: AtlasInfo, rel: str) -> Iterator[str]:
    """A CSR folder `codes/<source>` or `energy/<source>` is well formed: order, range, sign, dtypes and rows."""
    kind, source = rel.split("/")
    stored = CSR.open(folder, info.concepts, folder.parent.parent)
    dtypes = (stored.indptr.dtype, stored.indices.dtype, stored.values.dtype)
    if dtypes != (np.int64, stored.indices.dtype, schema.CSR_VALUES[kind]) or dtypes[1] not in (np.uint16, np.uint32):
        yield f"its dtypes are {', '.join(map(str, dtypes))}"
        return
    rows = info.source(source).images * (info.tokens if kind == "codes" else 1)
    if stored.shape[0] != rows:
        yield f"it has {stored.shape[0]} rows instead of {rows}"
    if len(stored.indices) and int(stored.indices.max()) >= info.concepts:
        yield f"it names concept {int(stored.indices.max())} of {info.concepts}"
    rising = stored.indices[1:] > stored.indices[:-1]
    starts = stored.indptr[1:-1]
    rising[starts[(starts > 0) & (starts < len(stored.indices))] - 1] = True
    if not rising.all():
        yield "the concepts of a row do not rise"
    if not (np.isfinite(stored.values) & (stored.values > 0)).all():
        yield "a value is not a finite number above zero"
    elif kind == "codes" and (stored.values >= np.finfo(np.float16).max).any():
        yield "a code is the largest number of float16, which stands for larger ones: build the atlas again"


def _energies_agree(root: Path, info: AtlasInfo, source: str) -> Iterator[str]:
    """The moments in `energies.parquet` are those of the stored image energies."""
    stored = CSR.open(root / "energy" / source, info.concepts, root)
    table = read_table(root, "energies")
    rows = table.filter(pc.equal(table["source"], source)).sort_by("concept")
    if rows.num_rows != info.concepts or (len(stored.indices) and int(stored.indices.max()) >= info.concepts):
        return
    total = np.bincount(stored.indices, stored.values.astype(np.float64), minlength=info.concepts)
    if not np.allclose(total, rows["sum"].to_numpy(), rtol=1e-5, atol=1e-8):
        yield "its energies do not add up to the sums in energies.parquet"
    if not np.array_equal(np.bincount(stored.indices, minlength=info.concepts), rows["images_active"].to_numpy()):
        yield "its active images are not those in energies.parquet"


def _report_agrees(root: Path, info: AtlasInfo) -> Iterator[str]:
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


def divergence_agrees(atlas: Analyses) -> Iterator[str]:
    """The pairs are those of `images.parquet`, and their l2 is that of the stored energies; its absence is fine."""
    if not atlas.has("divergence"):
        return
    pair = read_table(atlas.path, "images")["pair"].to_numpy()
    real = CSR.open(atlas.path / "energy" / REAL, atlas.info.concepts, atlas.path).rows()
    for source in atlas.info.sources[1:]:
        if not source.paired:
            continue
        frame, images = atlas.divergence(source.name), atlas.info.image_range(source.name)
        rows, real_rows = frame["image"].to_numpy(), frame["real_image"].to_numpy()
        if not (np.array_equal(pair[rows], frame.index) and np.array_equal(pair[real_rows], frame.index)):
            yield f"the pairs of {source.name!r} are not those in images.parquet"
            continue
        if len(frame) != np.count_nonzero(pair[list(images)] >= 0):
            yield f"{source.name!r} lacks some of its pairs"
        model = CSR.open(atlas.path / "energy" / source.name, atlas.info.concepts, atlas.path).rows()
        l2 = pair_divergence(real, model, real_rows, rows - images.start).l2
        if not np.allclose(l2, frame["l2"], rtol=1e-4, atol=1e-5):
            yield f"the divergence of {source.name!r} is not that of its energies"


def composition(atlas: Analyses) -> Iterator[str]:
    """Every source has its curve, its eigenvalues and unit eigenvectors; an atlas without them is fine."""
    if not atlas.has("composition"):
        return
    for source in atlas.info.sources:
        yield from (f"{source.name!r}: {complaint}" for complaint in _composition(atlas, source.name))


def _composition(atlas: Analyses, source: str) -> Iterator[str]:
    found = atlas.composition(source)
    images = atlas.info.source(source).images
    rows = images * (1 if atlas.info.composition_rows == "image" else atlas.info.tokens)
    if (found.images, found.tokens) != (images, rows):
        yield "its images and rows are not the header's"
    sizes = {len(found.eps), len(found.l0), len(found.unique), len(found.reference)}
    if len(sizes) != 1 or not (np.diff(found.eps) > 0).all():
        yield "its curves do not share one rising list of thresholds"
        return
    if (np.diff(found.l0) > 0).any() or found.l0.max(initial=0) > found.entries:
        yield "its L0 curve rises, or exceeds its entries"
    for name, share in (("unique", found.unique), ("reference", found.reference)):
        yield from between(share[~np.isnan(share)], name, 0, 1)
    if found.eigenvectors.shape != (atlas.info.concepts, len(found.eigenvalues)):
        yield "it has not one eigenvector over all concepts per eigenvalue"
        return
    if (np.diff(found.eigenvalues) > 0).any() or (found.eigenvalues < 0).any():
        yield "its eigenvalues are negative or rise"
    if not np.allclose(np.linalg.norm(found.eigenvectors, axis=0), 1, atol=0.01):
        yield "an eigenvector is not of length 1"


def _thumbs(root: Path, images: int) -> Iterator[str]:
    """Every image has a thumbnail, and each is a webp file."""
    if images and images != read_table(root, "images").num_rows:
        return  # which its table complains of
    yield from _pictures(root, "thumbnails", (schema.thumb_file(image) for image in range(images)))


def _gallery(root: Path) -> Iterator[str]:
    """The images that `gallery.parquet` names are there; an atlas without it is fine."""
    if (root / schema.table_file("gallery")).exists():
        table = read_table(root, "gallery")
        named = zip(table["concept"].to_pylist(), table["rank"].to_pylist(), strict=True)
        yield from _pictures(root, "drawn images", (schema.gallery_file(*one) for one in named))


def _stress(root: Path) -> Iterator[str]:
    """The images of the stress tests that `stress.parquet` names are there; an atlas without it is fine."""
    if (root / schema.table_file("stress")).exists():
        table = read_table(root, "stress")
        named = zip(table["concept"].to_pylist(), table["model"].to_pylist(), strict=True)
        files = [schema.stress_file(*one) for one in named]
        yield from _pictures(root, "strips of images", filter(schema.contained, files))


def _pictures(root: Path, what: str, files: Iterable[str]) -> Iterator[str]:
    missing, foreign = [], []
    for rel in files:
        path = root / rel
        try:
            with regular_file(root, rel).open("rb") as file:
                start = file.read(12)
        except (OSError, BlindspotError):
            missing.append(path.name)
            continue
        if start[:4] != b"RIFF" or start[8:] != b"WEBP":
            foreign.append(path.name)
    if missing:
        yield f"{len(missing)} {what} are missing, the first is {missing[0]}"
    if foreign:
        yield f"{len(foreign)} {what} are no webp pictures, the first is {foreign[0]}"


def _index(root: Path, name: str, rows: int) -> Iterator[str]:
    """A FAISS index holds one vector per row; an atlas without the index is fine."""
    if (root / name).exists() and (total := open_index(root, name).ntotal) != rows:
        yield f"it holds {total} vectors instead of {rows}"


def _weights(root: Path, info: AtlasInfo) -> Iterator[str]:
    """The dictionary's weights are finite numbers, and one side of its largest matrix is the concepts.

    An atlas without them is fine.
    """
    from safetensors import safe_open

    if not (root / WEIGHTS).exists():
        return
    config: Any = read_document(root, CONFIG)
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        yield f"{CONFIG} does not say what kind of dictionary it is"
    with parsing(root / WEIGHTS), safe_open(regular_file(root, WEIGHTS), framework="numpy") as tensors:
        names, sides = list(tensors.keys()), set()
        for name in names:
            sides |= set(tensors.get_slice(name).get_shape())
            if not np.isfinite(tensors.get_tensor(name).astype(np.float32)).all():
                yield f"its {name} holds values that are not finite numbers"
        if info.concepts not in sides:
            yield f"none of its tensors is over {info.concepts} concepts"
