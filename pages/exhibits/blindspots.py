"""Blindspots over all concepts: how delta is spread, its ranking, what models share, and misalignment by frequency."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.atlas.storage import read_table
from engine.blindspots.correlation import correlate_models
from engine.blindspots.distribution import DeltaDistribution, delta_distribution, rank_concepts
from engine.blindspots.frequency import frequency_bands
from engine.blindspots.universal import shared_blindspots
from engine.errors import BlindspotError
from engine.figures import agreement
from engine.figures.distribution import delta_densities, delta_ranking, frequency_scatter
from engine.figures.frame import Basis
from pages.exhibits.base import DELTA_KEYS, Exhibit, Maker, clickable, drawn
from pages.widgets import data
from pages.widgets.state import View

RANKED = 12
"""Concepts at either end of the ranking's figure."""
QUANTITIES = {"relative": "relative gap", "delta": "delta"}
FEW = 2_000
"""Fewer concepts than this are drawn as larger dots."""
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
    figure.for_each_trace(lambda trace: trace.update(name=trace.name.partition(":")[0]))
    return drawn(figure, pd.concat(rows, ignore_index=True))


def summary(view: View) -> Exhibit:
    """Median, skewness and tail masses of every model in numbers."""
    tables, rows = live_tables(view), []
    for model, found in _spreads(view).items():
        q = tables[model]["q"]
        significant = int((q < 0.05).sum()) if q.notna().any() else None
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


def ranking(view: View) -> Exhibit:
    """Both ends of the view's ranking with intervals; the table has all live concepts."""
    rows = ranked(view)
    ends = pd.concat([rows.head(RANKED), rows.tail(RANKED)]) if len(rows) > 2 * RANKED else rows
    figure = delta_ranking(ends, model=view.model, basis=data.basis(view))
    return drawn(clickable(figure), rows.reset_index()[RANKING_COLUMNS])


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
    if len(shown) < FEW:
        outline = {"width": 0.6, "color": "rgba(255,255,255,0.5)"}
        figure.data[0].marker.update(size=7, opacity=0.9, line=outline)
    named = shown.assign(label=table["label"]).rename(columns={"value": "delta"}).reset_index()
    return drawn(clickable(figure), named[["concept", "label", "fires", "delta"]])


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


def shared(view: View) -> Exhibit:
    """Universal and specific blindspots: -1 suppressed, 1 exaggerated, 0 neither."""
    tables = live_tables(view)
    first = next(iter(tables.values()))
    deltas = np.stack([table["delta"].to_numpy() for table in tables.values()])
    found = shared_blindspots(deltas, suppressed=view.low, exaggerated=view.high)
    columns = {"concept": first.index, "label": first["label"], "universal": found.universal}
    columns |= {f"specific to {model}": row for model, row in zip(tables, found.specific, strict=True)}
    columns |= {f"delta of {model}": row for model, row in zip(tables, deltas, strict=True)}
    return Exhibit("Universal and specific blindspots", pd.DataFrame(columns))


def _compared(view: View) -> tuple[pd.DataFrame, str]:
    """Return the view's quantity, live concepts x models, and what it is, its estimator and n."""
    tables = live_tables(view)
    values = pd.DataFrame({model: table[view.quantity] for model, table in tables.items()})
    images = data.basis(view, next(iter(tables))).sentence().split(" · ")[-1]
    sentence = data.basis(view).sentence() if view.quantity == "delta" else f"relative gap, from -1 to 1 · {images}"
    return values, f"{sentence}; {len(values):,} concepts"


def correlation(view: View, method: str) -> Exhibit:
    """Correlation of every two models, with its interval."""
    values, sentence = _compared(view)
    found = correlate_models(values.to_numpy().T, method=method)
    square = [pd.DataFrame(matrix, index=list(values), columns=list(values)) for matrix in found[1:]]
    figure = agreement.correlation_heat(
        *square, quantity=view.quantity, method=method.capitalize(), concepts=found.concepts, basis=data.basis(view)
    )
    figure.layout.title.subtitle.text = sentence
    figure.update_traces(textfont={"color": None})
    names = list(values)
    rows = [
        (names[i], names[j], view.quantity, method, *(matrix.iat[i, j] for matrix in square), found.concepts)
        for i in range(len(names)) for j in range(i + 1, len(names))
    ]  # fmt: skip
    columns = ["first", "second", "quantity", "method", "r", "low", "high", "concepts"]
    return drawn(figure, pd.DataFrame(rows, columns=columns))


def pairs(view: View) -> Exhibit:
    """Every two models against each other."""
    values, sentence = _compared(view)
    figure = agreement.scatter_matrix(values, quantity=view.quantity, basis=data.basis(view))
    figure.layout.meta = {"how": agreement.PAIRS_HOW.replace("delta", QUANTITIES[view.quantity])}
    figure.layout.title.text = f"{QUANTITIES[view.quantity].capitalize()} of every two models"
    figure.layout.title.subtitle.text = sentence
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    return drawn(figure, values.reset_index())


AGREEMENT_KEYS = (*DELTA_KEYS, "quantity")
MAKERS = {
    "delta-densities": Maker(spread, DELTA_KEYS),
    "delta-summary": Maker(summary, DELTA_KEYS),
    "delta-ranking": Maker(ranking, ("model", *DELTA_KEYS)),
    "frequency": Maker(frequency, ("model", "low", "high")),
    "shared-blindspots": Maker(shared, DELTA_KEYS),
    "correlation-pearson": Maker(lambda view: correlation(view, "pearson"), AGREEMENT_KEYS),
    "correlation-spearman": Maker(lambda view: correlation(view, "spearman"), AGREEMENT_KEYS),
    "scatter-matrix": Maker(pairs, AGREEMENT_KEYS),
}
