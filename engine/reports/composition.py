"""Which concepts appear together: connected pairs, spectra, what changed most; and the scalar metrics beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.atlas import Atlas
from engine.atlas.analyses import Composition
from engine.atlas.schema import HALVES, REAL
from engine.blindspots.spectrum import Spectrum, eigenvector_similarity, subspace_overlap
from engine.errors import BlindspotError
from engine.figures import composition as figures
from engine.reports.base import Report, ReportView, figure_report, has, register

LEVEL = 0.05
"""Adjusted p below which a changed pair is significant."""
CHANGED = 16
"""Changed pairs of concepts in their figure."""


def _sources(atlas: Atlas) -> tuple[dict[str, Composition], dict[str, int]]:
    """Return composition and number of images of every source, the real one first."""
    found = {source.name: atlas.composition(source.name) for source in atlas.sources}
    return found, {name: one.images for name, one in found.items()}


@register("connections", possible=has("composition"))
def connections(atlas: Atlas, view: ReportView) -> Report:
    """The L0 curve of every source."""
    found, images = _sources(atlas)
    curves = pd.DataFrame({name: one.l0 for name, one in found.items()}, index=found[REAL].eps)
    return figure_report(
        figures.l0_curves(curves, images=images, composed=atlas.info.composed),
        curves.rename_axis("threshold").reset_index(),
    )


@register("unique-connections", possible=has("composition"))
def unique(atlas: Atlas, view: ReportView) -> Report:
    """The share of entries that real images lack, with what chance makes of it."""
    found, images = _sources(atlas)
    real, half = found.pop(REAL), images.pop(REAL) // 2
    shares = pd.DataFrame({name: one.unique for name, one in found.items()}, index=real.eps)
    shares[HALVES] = real.reference
    composed = atlas.info.composed
    figure = figures.unique_shares(shares, images=images, baseline=HALVES, half=half, composed=composed)
    return figure_report(figure, shares.rename_axis("threshold").reset_index())


@register("spectrum", possible=has("composition"))
def spectrum(atlas: Atlas, view: ReportView) -> Report:
    """The leading eigenvalues of every source, per image."""
    found, images = _sources(atlas)
    rank = min(len(one.eigenvalues) for one in found.values())
    values = {name: one.eigenvalues[:rank] / max(one.images, 1) for name, one in found.items()}
    table = pd.DataFrame(values, index=pd.RangeIndex(1, rank + 1, name="rank"))
    return figure_report(figures.spectra(table, images=images, composed=atlas.info.composed), table.reset_index())


@register("directions", "model", possible=has("composition"))
def directions(atlas: Atlas, view: ReportView) -> Report:
    """How parallel the leading eigenvectors of the view's model are to the real ones."""
    sides = {name: atlas.composition(name) for name in (REAL, view.model)}
    spectra = [Spectrum(one.eigenvalues, one.eigenvectors.astype(np.float64)) for one in sides.values()]
    found = eigenvector_similarity(*spectra)
    images = {name: one.images for name, one in sides.items()}
    overlap, composed = float(subspace_overlap(found)[-1]), atlas.info.composed
    figure = figures.similarity_heat(found, overlap, model=view.model, images=images, composed=composed)
    ranks = np.indices(found.shape).reshape(2, -1) + 1
    table = pd.DataFrame({"real_rank": ranks[0], "model_rank": ranks[1], "cosine": found.ravel()})
    return figure_report(figure, table)


def changed_pairs(atlas: Atlas, model: str) -> pd.DataFrame:
    """Return the pairs of concepts that changed most, with how many times as many rows of Z per image share them.

    Pairs that are significant at `LEVEL` come first (column ``significant``), and of them the largest change.
    """
    rows = atlas.changes(model)
    real, drawn = (max(atlas.info.source(name).images, 1) for name in (REAL, model))
    with np.errstate(divide="ignore"):
        ratio = (rows["model_tokens"] / drawn).to_numpy() / (rows["real_tokens"] / real).to_numpy()
    rows = rows.assign(ratio=ratio, significant=rows["p_adjusted"] < LEVEL)
    return rows.sort_values("significant", ascending=False, kind="stable")


def significance_sentence(rows: pd.DataFrame) -> str:
    """Return how many of a model's `changed_pairs` are more than chance, in a sentence."""
    significant = int(rows["significant"].sum())
    if significant:
        return f"{significant:,} of these {len(rows):,} pairs are significant (adjusted p < {LEVEL:g})."
    return f"None of these {len(rows):,} pairs is significant (adjusted p < {LEVEL:g}): chance alone does as much."


@register("changed-pairs", "model", possible=has("changes"))
def changes(atlas: Atlas, view: ReportView) -> Report:
    """The pairs of concepts whose co-occurrence changed most in the view's model."""
    rows = changed_pairs(atlas, view.model)
    if not len(rows):
        raise BlindspotError(
            f"No two concepts share {atlas.info.composed} often enough in {view.model!r} to say what changed."
        )
    images = {name: atlas.info.source(name).images for name in (REAL, view.model)}
    composed = atlas.info.composed
    figure = figures.changed_cooccurrence(rows.head(CHANGED), model=view.model, images=images, composed=composed)
    return figure_report(figure, rows)


@register("metrics", possible=has("metrics"))
def metrics(atlas: Atlas, view: ReportView) -> Report:
    """Frechet distance, precision, recall, density and coverage in encoder and in concept space."""
    return Report("Scalar metrics of every model", atlas.metrics())
