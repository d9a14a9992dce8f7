"""Which concepts appear together: connected pairs, spectra, what changed most; and the scalar metrics beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.atlas.analyses import Composition
from engine.atlas.schema import HALVES
from engine.blindspots.spectrum import Spectrum, eigenvector_similarity, subspace_overlap
from engine.figures import composition as figures
from pages.exhibits.base import Exhibit, Maker, drawn
from pages.widgets import data
from pages.widgets.state import View

LEVEL = 0.05
"""Adjusted p below which a changed pair is significant."""
CHANGED = 16
"""Changed pairs of concepts in their figure."""


def sources() -> dict[str, Composition]:
    """Return the composition of every source, the real one first."""
    atlas = data.current()
    return {source.name: atlas.composition(source.name) for source in atlas.sources}


def _images(found: dict[str, Composition]) -> dict[str, int]:
    return {name: one.images for name, one in found.items()}


def connections(view: View) -> Exhibit:
    """The L0 curve of every source."""
    found = sources()
    curves = pd.DataFrame({name: one.l0 for name, one in found.items()}, index=found["real"].eps)
    return drawn(figures.l0_curves(curves, images=_images(found)), curves.rename_axis("threshold").reset_index())


def unique(view: View) -> Exhibit:
    """The share of entries that real images lack, with what chance makes of it."""
    found = sources()
    real = found.pop("real")
    shares = pd.DataFrame({name: one.unique for name, one in found.items()}, index=real.eps)
    shares[HALVES] = real.reference
    figure = figures.unique_shares(shares, images=_images(found), baseline=HALVES, half=real.images // 2)
    return drawn(figure, shares.rename_axis("threshold").reset_index())


def spectrum(view: View) -> Exhibit:
    """The leading eigenvalues of every source, per image."""
    found = sources()
    rank = min(len(one.eigenvalues) for one in found.values())
    values = {name: one.eigenvalues[:rank] / max(one.images, 1) for name, one in found.items()}
    table = pd.DataFrame(values, index=pd.RangeIndex(1, rank + 1, name="rank"))
    return drawn(figures.spectra(table, images=_images(found)), table.reset_index())


def similarity(view: View) -> Exhibit:
    """How parallel the leading eigenvectors of the view's model are to the real ones."""
    atlas = data.current()
    sides = {name: atlas.composition(name) for name in ("real", view.model)}
    spectra = [Spectrum(one.eigenvalues, one.eigenvectors.astype(np.float64)) for one in sides.values()]
    found = eigenvector_similarity(*spectra)
    overlap = float(subspace_overlap(found)[-1])
    figure = figures.similarity_heat(found, overlap, model=view.model, images=_images(sides))
    ranks = np.indices(found.shape).reshape(2, -1) + 1
    columns = {"real_rank": ranks[0], "model_rank": ranks[1], "cosine": found.ravel()}
    return drawn(figure, pd.DataFrame(columns))


def changed_pairs(model: str) -> pd.DataFrame:
    """Return the pairs of concepts that changed most, with how many times as many tokens per image share them.

    Pairs that are significant at `LEVEL` come first (column ``significant``), and of them the largest change.
    """
    atlas = data.current()
    rows = atlas.changes(model)
    real, drawn_by = (max(atlas.info.source(name).images, 1) for name in ("real", model))
    with np.errstate(divide="ignore"):
        ratio = (rows["model_tokens"] / drawn_by).to_numpy() / (rows["real_tokens"] / real).to_numpy()
    rows = rows.assign(ratio=ratio, significant=rows["p_adjusted"] < LEVEL)
    return rows.sort_values("significant", ascending=False, kind="stable")


def verdict(rows: pd.DataFrame) -> str:
    """Say how many of a model's `changed_pairs` are more than chance."""
    significant = int(rows["significant"].sum())
    if significant:
        return f"{significant:,} of these {len(rows):,} pairs are significant (adjusted p < {LEVEL:g})."
    return f"None of these {len(rows):,} pairs is significant (adjusted p < {LEVEL:g}): chance alone does as much."


def changes(view: View) -> Exhibit:
    """The pairs of concepts whose co-occurrence changed most in the view's model."""
    rows = changed_pairs(view.model)
    images = {name: data.current().info.source(name).images for name in ("real", view.model)}
    figure = figures.changed_cooccurrence(rows.head(CHANGED), model=view.model, images=images)
    return drawn(figure, rows)


def metrics(view: View) -> Exhibit:
    """FID, precision, recall, density and coverage in encoder and in concept space."""
    return Exhibit("Scalar metrics of every model", data.current().metrics())


MAKERS = {
    "connections": Maker(connections, ()),
    "unique-connections": Maker(unique, ()),
    "spectrum": Maker(spectrum, ()),
    "directions": Maker(similarity, ("model",)),
    "changed-pairs": Maker(changes, ("model",)),
    "metrics": Maker(metrics, ()),
}
