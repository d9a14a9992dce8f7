"""Blindspots over all concepts: how delta is spread, its ranking, and misalignment by frequency."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.atlas.storage import read_table
from engine.blindspots.distribution import DeltaDistribution, delta_distribution, frequency_bands, rank_concepts
from engine.errors import BlindspotError
from engine.figures.distribution import delta_densities, delta_ranking, frequency_scatter
from engine.figures.style import Basis
from engine.figures.tables import LEVEL, most_different
from pages.exhibits.base import DELTA_KEYS, Exhibit, Maker, drawn
from pages.widgets import data
from pages.widgets.state import View

RANKED = 12
"""Concepts at either end of the ranking's figure."""
PAPER = ("relative", 0.4)
"""Estimator and temperature that the paper reads misalignment against frequency at."""
MOMENTS = ("concepts", "median", "skewness", "suppressed", "exaggerated")
"""Numbers of one model's spread."""
RANKING_COLUMNS = [
    "concept", "label", "delta", "ci_low", "ci_high", "p", "q", "gap", "relative", "energy_real", "energy_model",
    "frequency",
]  # fmt: skip


def live_tables(view: View) -> dict[str, pd.DataFrame]:
    """Return the concept table of every model, with the concepts that live and were measured in every model."""
    tables = {model: data.table(view, model) for model in data.current().models}
    live = np.logical_and.reduce([_alive(table) for table in tables.values()])
    return {model: table[live] for model, table in tables.items()}


def _alive(table: pd.DataFrame) -> np.ndarray:
    return ~table["dead"].to_numpy(bool) & np.isfinite(table["delta"].to_numpy())


def spread(view: View) -> Exhibit:
    """The log densities of delta, every model."""
    spreads = _spreads(view)
    first = next(iter(spreads.values()))
    densities = pd.DataFrame({model: found.density for model, found in spreads.items()}, index=first.centres)
    numbers = {model: {name: getattr(found, name) for name in MOMENTS} for model, found in spreads.items()}
    rows = [
        pd.DataFrame({"model": model, "from": found.edges[:-1], "to": found.edges[1:], "concepts": found.counts,
                      "density": found.density, "log10_density": found.log_density})
        for model, found in spreads.items()
    ]  # fmt: skip
    figure = delta_densities(densities, pd.DataFrame(numbers).T, basis=data.basis(view))
    return drawn(figure, pd.concat(rows, ignore_index=True))


def summary(view: View) -> Exhibit:
    """Median, skewness and tail masses of every model in numbers."""
    tables, rows = live_tables(view), []
    for model, found in _spreads(view).items():
        q = tables[model]["q"]
        significant = int((q < LEVEL).sum()) if q.notna().any() else None
        images = data.current().info.source(model).images
        rows.append((model, *(getattr(found, name) for name in MOMENTS), significant, images))
    columns = ["model", *MOMENTS, "significant", "images"]
    return Exhibit("Delta of every model in numbers", pd.DataFrame(rows, columns=columns))


def _spreads(view: View) -> dict[str, DeltaDistribution]:
    return {
        model: delta_distribution(table["delta"].to_numpy(), suppressed=view.low, exaggerated=view.high)
        for model, table in live_tables(view).items()
    }


def ranked(view: View) -> pd.DataFrame:
    """Return the view's live concepts from the most suppressed to the most exaggerated."""
    table = data.table(view)
    return table.loc[rank_concepts(table["delta"].to_numpy(), table["gap"].to_numpy(), _alive(table))]


def ends(view: View, count: int) -> dict[str, pd.DataFrame]:
    """Return up to `count` concepts of both ends of the view's ranking, most extreme first but certain ones before."""
    rows = ranked(view)
    return {side: most_different(rows, side, min(count, len(rows) // 2)) for side in ("suppressed", "exaggerated")}


def ranking(view: View) -> Exhibit:
    """Both ends of the view's ranking with intervals; the table has all live concepts."""
    rows = ranked(view)
    shown = rows[rows.index.isin(pd.concat(ends(view, RANKED).values()).index)]
    figure = delta_ranking(shown, model=view.model, basis=data.basis(view))
    return drawn(figure, rows.reset_index()[RANKING_COLUMNS])


def frequency(view: View) -> Exhibit:
    """Misalignment against frequency of the view's model, at the paper's estimator and temperature."""
    atlas, estimator, temperature = data.current(), *PAPER
    table = data.concept_table(data.atlas_path(), view.model, estimator, temperature)
    shown = pd.DataFrame({"fires": fires(), "value": table["delta"]})[_alive(table)]
    found = frequency_bands(shown["fires"].to_numpy(), shown["value"].to_numpy())
    bands = pd.DataFrame(found.bands.T, columns=["low", "middle", "high"], index=found.centres)
    source = atlas.info.source(view.model)
    basis = Basis(estimator, temperature, view.low, view.high, source.images, source.paired)
    figure = frequency_scatter(shown, bands, model=view.model, spearman=found.spearman, basis=basis)
    named = shown.assign(label=table["label"]).rename(columns={"value": "delta"}).reset_index()
    return drawn(figure, named[["concept", "label", "fires", "delta"]])


def fires() -> np.ndarray:
    """Return the token codes above zero of every concept in real images [K].

    Raises
    ------
    BlindspotError
        If the atlas does not say.
    """
    atlas = data.current()
    energies = read_table(atlas.path, "energies").to_pandas()
    found = energies[energies["source"] == "real"].set_index("concept")["fires"].reindex(range(atlas.count))
    published = atlas.published()
    if found.isna().all() and published is not None:
        found = published["fires"]
    if found.isna().all():
        raise BlindspotError(f"The atlas {atlas.info.name!r} does not say how often its concepts fire in real images.")
    return found.fillna(0).to_numpy(np.float64)


MAKERS = {
    "delta-densities": Maker(spread, DELTA_KEYS),
    "delta-summary": Maker(summary, DELTA_KEYS),
    "delta-ranking": Maker(ranking, ("model", *DELTA_KEYS)),
    "frequency": Maker(frequency, ("model", "low", "high")),
}
