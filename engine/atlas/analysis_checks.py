"""What must hold in the analyses beyond delta, one function per file; each yields its complaints, as in `checks`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from engine.atlas.analyses import Analyses
from engine.atlas.schema import HALVES, REAL, AtlasInfo
from engine.atlas.storage import CSR, read_table
from engine.blindspots.divergence import pair_divergence

SPACES = ("encoder", "concepts")


def divergence(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
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
    yield from _inside(frame["l2"], "l2", 0, np.inf)
    yield from _inside(frame["mean_delta"], "mean_delta", 0, 1)
    yield from _inside(frame["nearest_real_similarity"], "nearest_real_similarity", -1, 1)
    yield from _inside(frame["p"], "p", 0, 1)


def divergence_agrees(atlas: Analyses) -> Iterator[str]:
    """The pairs are those of `images.parquet`, and their l2 is that of the stored energies; its absence is fine."""
    if not atlas.has("divergence"):
        return
    pair = read_table(atlas.path, "images")["pair"].to_numpy()
    real = CSR.open(atlas.path / "energy" / REAL, atlas.info.concepts).rows()
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
        model = CSR.open(atlas.path / "energy" / source.name, atlas.info.concepts).rows()
        l2 = pair_divergence(real, model, real_rows, rows - images.start).l2
        if not np.allclose(l2, frame["l2"], rtol=1e-4, atol=1e-5):
            yield f"the divergence of {source.name!r} is not that of its energies"


def changes(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Pairs of two different concepts with counts, cosines and p-values that can be."""
    frame = table.to_pandas()
    if unknown := sorted(set(frame["model"]) - {source.name for source in info.sources[1:]}):
        yield f"{unknown[0]!r} is no model of this atlas"
    first, second = frame["first"], frame["second"]
    if not ((first >= 0) & (first < second) & (second < info.concepts)).all():
        yield "a pair is not of two concepts in rising order"
    if frame.duplicated(["model", "first", "second"]).any():
        yield "a pair of concepts is there twice"
    for side in ("real", "model"):
        yield from _inside(frame[f"{side}_cosine"], f"{side}_cosine", 0, 1)
        images, tokens = frame[f"{side}_images"], frame[f"{side}_tokens"]
        if not ((images >= 0) & (images <= tokens)).all():
            yield f"a pair is in more images than tokens of the {side} source"
    yield from _inside(frame["p"], "p", 0, 1)
    yield from _inside(frame["p_adjusted"], "p_adjusted", 0, 1)
    if (frame["p_adjusted"] < frame["p"]).any():
        yield "an adjusted p is smaller than the p itself"


def metrics(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """One row per model and space, and the halves; a number is in its range or missing."""
    frame = table.to_pandas()
    names = {HALVES, *(source.name for source in info.sources[1:])}
    wanted = {(name, space) for name in names for space in SPACES}
    found = list(zip(frame["model"], frame["space"], strict=True))
    if len(found) != len(wanted) or set(found) != wanted:
        yield "its rows are not one per model and space, and two for the real halves"
    for column in ("fid", "fid_mean", "fid_covariance", "fid_half", "density"):
        yield from _inside(frame[column].dropna(), column, 0, np.inf)
    for column in ("precision", "recall", "coverage"):
        yield from _inside(frame[column].dropna(), column, 0, 1)


def composition(atlas: Analyses) -> Iterator[str]:
    """Every source has its curve, its eigenvalues and unit eigenvectors; an atlas without them is fine."""
    if not atlas.has("composition"):
        return
    for source in atlas.info.sources:
        yield from (f"{source.name!r}: {complaint}" for complaint in _composition(atlas, source.name))


def _composition(atlas: Analyses, source: str) -> Iterator[str]:
    found = atlas.composition(source)
    images = atlas.info.source(source).images
    if (found.images, found.tokens) != (images, images * atlas.info.tokens):
        yield "its images and tokens are not the header's"
    sizes = {len(found.eps), len(found.l0), len(found.unique), len(found.reference)}
    if len(sizes) != 1 or not (np.diff(found.eps) > 0).all():
        yield "its curves do not share one rising list of thresholds"
        return
    if (np.diff(found.l0) > 0).any() or found.l0.max(initial=0) > found.entries:
        yield "its L0 curve rises, or exceeds its entries"
    for name in ("unique", "reference"):
        share = getattr(found, name)
        yield from _inside(share[~np.isnan(share)], name, 0, 1)
    rank = len(found.eigenvalues)
    if found.eigenvectors.shape != (atlas.info.concepts, rank):
        yield "it has not one eigenvector over all concepts per eigenvalue"
        return
    if (np.diff(found.eigenvalues) > 0).any() or (found.eigenvalues < 0).any():
        yield "its eigenvalues are negative or rise"
    if not np.allclose(np.linalg.norm(found.eigenvectors, axis=0), 1, atol=0.01):
        yield "an eigenvector is not of length 1"


def _inside(values: np.ndarray | pd.Series, name: str, low: float, high: float) -> Iterator[str]:
    values = np.asarray(values, np.float64)
    if not ((values >= low - 1e-5) & (values <= high + 1e-5)).all():
        yield f"{name} is not between {low} and {high} everywhere"
