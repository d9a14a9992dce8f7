"""Blindspots over all concepts: maps, how delta is spread, its ranking and frequency, and what models share."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.atlas.storage import read_table
from engine.blindspots.correlation import METHODS, correlate_models
from engine.blindspots.distribution import (
    DeltaDistribution,
    delta_distribution,
    frequency_bands,
    rank_concepts,
    shared_blindspots,
)
from engine.errors import BlindspotError
from engine.figures.compare import correlation_heat, delta_scatter, scatter_matrix
from engine.figures.distribution import delta_densities, delta_ranking, frequency_scatter
from engine.figures.map import MOST_MAPS, concept_map, model_maps
from engine.figures.style import Basis
from engine.figures.tables import LEVEL, certain, delta_of_all, most_different
from engine.reports.base import (
    DELTA_PARAMETERS,
    MODEL_PARAMETERS,
    Report,
    ReportView,
    concept_table,
    figure_report,
    register,
    several,
    view_basis,
    view_table,
)
from engine.reports.selection import SELECTION, select

RANKED = 12
"""Concepts at either end of the ranking's figure."""
PUBLISHED_SETTING = ("relative", 0.4)
"""Estimator and temperature at which "Conceptual Blindspots in Generative Image Models" reads delta against
frequency."""
MOMENTS = ("concepts", "median", "skewness", "suppressed", "exaggerated")
"""Numbers of one model's distribution."""
MAP_COLUMNS = ["concept", "label", "x", "y", "cluster", "delta", "relative", "q", "frequency"]
RANKING_COLUMNS = [
    "concept", "label", "delta", "ci_low", "ci_high", "p", "q", "gap", "relative", "energy_real", "energy_model",
    "frequency",
]  # fmt: skip


@register("map", *MODEL_PARAMETERS)
def one_map(atlas: Atlas, view: ReportView) -> Report:
    """The view's model on the concept map."""
    table = view_table(atlas, view)
    figure = concept_map(table, model=view.model, basis=view_basis(atlas, view))
    return figure_report(figure, table[~table["dead"]].reset_index()[MAP_COLUMNS])


@register("maps", "models", *DELTA_PARAMETERS, "reference", possible=lambda atlas: 1 < len(atlas.models) <= MOST_MAPS)
def several_maps(atlas: Atlas, view: ReportView) -> Report:
    """The maps of the view's models with matched axes."""
    tables = {model: view_table(atlas, view, model) for model in view.models}
    figure = model_maps(tables, basis=view_basis(atlas, view, view.models[0]))
    columns = {model: table["delta"] for model, table in tables.items()}
    first = next(iter(tables.values()))
    rows = first[["label", "x", "y"]].assign(**columns)[~first["dead"]]
    return figure_report(figure, rows.reset_index())


@register("delta-scatter", "models", *DELTA_PARAMETERS, "reference", possible=several)
def scatter(atlas: Atlas, view: ReportView) -> Report:
    """Delta against delta of the view's first two models."""
    names = (view.models * 2)[:2]
    a, b = (view_table(atlas, view, model) for model in names)
    figure = delta_scatter(a, b, names=(names[0], names[1]), basis=view_basis(atlas, view, names[0]))
    rows = pd.DataFrame({"label": a["label"], f"delta of {names[0]}": a["delta"], f"delta of {names[1]}": b["delta"]})
    return figure_report(figure, rows[~a["dead"]].reset_index())


def live_tables(atlas: Atlas, view: ReportView) -> dict[str, pd.DataFrame]:
    """Return the concept table of every model, with the concepts that live and were measured in every model."""
    tables = {model: view_table(atlas, view, model) for model in atlas.models}
    live = np.logical_and.reduce([_alive(table) for table in tables.values()])
    return {model: table[live] for model, table in tables.items()}


def _alive(table: pd.DataFrame) -> np.ndarray:
    return ~table["dead"].to_numpy(bool) & np.isfinite(table["delta"].to_numpy())


def _distributions(atlas: Atlas, view: ReportView, *, whole: bool = False) -> dict[str, DeltaDistribution]:
    """Of live concepts, or with `whole` of all of the dictionary."""
    if whole:
        tables = {model: view_table(atlas, view, model) for model in atlas.models}
        return {
            model: delta_distribution(delta_of_all(table), suppressed=view.low, exaggerated=view.high)
            for model, table in tables.items()
        }
    return {
        model: delta_distribution(table["delta"].to_numpy(), suppressed=view.low, exaggerated=view.high)
        for model, table in live_tables(atlas, view).items()
    }


@register("delta-densities", *DELTA_PARAMETERS)
def densities(atlas: Atlas, view: ReportView) -> Report:
    """The log densities of delta, every model."""
    found, whole = _distributions(atlas, view), _distributions(atlas, view, whole=True)
    first = next(iter(found.values()))
    curves = pd.DataFrame({model: one.density for model, one in found.items()}, index=first.centres)
    numbers = {model: {name: getattr(one, name) for name in MOMENTS} for model, one in found.items()}
    rows = [
        pd.DataFrame({"model": model, "from": one.edges[:-1], "to": one.edges[1:], "concepts": one.counts,
                      "density": one.density, "log10_density": one.log_density,
                      "all_concepts": whole[model].counts, "all_density": whole[model].density})
        for model, one in found.items()
    ]  # fmt: skip
    everything = pd.DataFrame({model: one.density for model, one in whole.items()}, index=first.centres)
    skews = {model: one.skewness for model, one in whole.items()}
    summary = pd.DataFrame(numbers).T.assign(
        all_concepts=pd.Series({model: one.concepts for model, one in whole.items()}), all_skewness=pd.Series(skews)
    )
    figure = delta_densities(curves, summary, basis=view_basis(atlas, view), everything=everything)
    return figure_report(figure, pd.concat(rows, ignore_index=True))


@register("delta-summary", *DELTA_PARAMETERS)
def summary(atlas: Atlas, view: ReportView) -> Report:
    """Median, skewness and tail masses of every model in numbers, over live concepts; skewness over all, too."""
    tables, whole, rows = live_tables(atlas, view), _distributions(atlas, view, whole=True), []
    for model, found in _distributions(atlas, view).items():
        q = tables[model]["q"]
        significant = int((q < LEVEL).sum()) if q.notna().any() else None
        over_all = whole[model].concepts, whole[model].skewness
        images = atlas.info.source(model).images
        rows.append((model, *(getattr(found, name) for name in MOMENTS), significant, images, *over_all))
    columns = ["model", *MOMENTS, "significant", "images", "all_concepts", "all_skewness"]
    return Report("Delta of every model in numbers", pd.DataFrame(rows, columns=columns))


def ranked_concepts(atlas: Atlas, view: ReportView) -> pd.DataFrame:
    """Return the view's selection from the most suppressed to the most exaggerated."""
    table = view_table(atlas, view)
    chosen = _alive(table) & select(atlas, view)
    return table.loc[rank_concepts(table["delta"].to_numpy(), table["gap"].to_numpy(), chosen)]


def ranking_ends(atlas: Atlas, view: ReportView, count: int) -> dict[str, pd.DataFrame]:
    """Return up to `count` concepts of both ends of the ranking, most extreme first but certain ones before."""
    rows = ranked_concepts(atlas, view)
    return {side: most_different(rows, side, min(count, len(rows) // 2)) for side in ("suppressed", "exaggerated")}


@register("delta-ranking", *MODEL_PARAMETERS, *SELECTION)
def ranking(atlas: Atlas, view: ReportView) -> Report:
    """Both ends of the ranking of the view's model with intervals; the table has all concepts of the selection."""
    rows = ranked_concepts(atlas, view)
    shown = rows[rows.index.isin(pd.concat(ranking_ends(atlas, view, RANKED).values()).index)]
    figure = delta_ranking(shown, model=view.model, basis=view_basis(atlas, view))
    return figure_report(figure, rows.reset_index()[RANKING_COLUMNS])


def firing_counts(atlas: Atlas) -> Float[np.ndarray, " concepts"]:
    """Return the token codes above zero of every concept in real images.

    Raises
    ------
    BlindspotError
        If the atlas does not say.
    """
    energies = read_table(atlas.path, "energies").to_pandas()
    found = energies[energies["source"] == REAL].set_index("concept")["fires"].reindex(range(atlas.count))
    published = atlas.published()
    if found.isna().all() and published is not None:
        found = published["fires"]
    if found.isna().all():
        raise BlindspotError(f"The atlas {atlas.info.called} does not say how often its concepts fire in real images.")
    return found.fillna(0).to_numpy(np.float64)


def _counts_known(atlas: Atlas) -> bool:
    try:
        firing_counts(atlas)
    except BlindspotError:
        return False
    return True


@register("frequency", "model", "low", "high", possible=_counts_known)
def frequency(atlas: Atlas, view: ReportView) -> Report:
    """Misalignment against frequency of the view's model, at the published estimator and temperature."""
    estimator, temperature = PUBLISHED_SETTING
    table = concept_table(atlas, view.model, estimator, temperature)
    shown = pd.DataFrame({"fires": firing_counts(atlas), "value": table["delta"]})[_alive(table)]
    found = frequency_bands(shown["fires"].to_numpy(), shown["value"].to_numpy())
    bands = pd.DataFrame(found.bands.T, columns=["low", "middle", "high"], index=found.centres)
    source = atlas.info.source(view.model)
    basis = Basis(estimator, temperature, view.low, view.high, source.images, source.paired)
    figure = frequency_scatter(shown, bands, model=view.model, spearman=found.spearman, basis=basis)
    named = shown.assign(label=table["label"]).rename(columns={"value": "delta"}).reset_index()
    return figure_report(figure, named[["concept", "label", "fires", "delta"]])


@register("shared-blindspots", *DELTA_PARAMETERS, "margin", possible=several)
def shared(atlas: Atlas, view: ReportView) -> Report:
    """Universal and specific blindspots, and those that miss the view's margin: -1 suppressed, 1 exaggerated, 0 no."""
    tables = live_tables(atlas, view)
    first = next(iter(tables.values()))
    deltas = np.stack([table["delta"].to_numpy() for table in tables.values()])
    found, loose = (
        shared_blindspots(deltas, suppressed=view.low, exaggerated=view.high, margin=margin)
        for margin in (view.margin, 0.0)
    )
    nearly = np.where(found.specific == 0, loose.specific, 0)
    columns = {"concept": first.index, "label": first["label"], "universal": found.universal}
    columns |= {f"specific to {model}": row for model, row in zip(tables, found.specific, strict=True)}
    columns |= {f"nearly specific to {model}": row for model, row in zip(tables, nearly, strict=True)}
    columns |= {f"delta of {model}": row for model, row in zip(tables, deltas, strict=True)}
    columns |= {f"q of {model}": table["q"] for model, table in tables.items()}
    return Report("Universal and specific blindspots", pd.DataFrame(columns))


def group_members(rows: pd.DataFrame, column: str, sign: int, models: list[str]) -> pd.DataFrame:
    """Return one group of `shared`, certain ones first and of them the most extreme first.

    Parameters
    ----------
    rows
        The table of `shared`.
    column, sign
        The group, and -1 for its suppressed or 1 for its exaggerated concepts.
    models
        The models whose delta and q count: all, or the one that the group is specific to.

    Returns
    -------
    The group's rows with a column ``sure``: q < `LEVEL` in each of the models.
    """
    some = rows[rows[column] == sign]
    sure = np.logical_and.reduce([certain(some.rename(columns={f"q of {model}": "q"})) for model in models])
    extreme = -sign * some[[f"delta of {model}" for model in models]].mean(axis=1)
    return some.assign(sure=sure, extreme=extreme).sort_values(["sure", "extreme"], ascending=[False, True])


def _values(atlas: Atlas, view: ReportView) -> pd.DataFrame:
    """Return the view's quantity, live concepts x models."""
    return pd.DataFrame({model: table[view.quantity] for model, table in live_tables(atlas, view).items()})


def correlation(atlas: Atlas, view: ReportView, *, method: str) -> Report:
    """Pearson's or Spearman's correlation of every two models, with its interval."""
    values, basis = _values(atlas, view), view_basis(atlas, view, atlas.models[0])
    found, names = correlate_models(values.to_numpy().T, method=method), list(values)
    parts = (found.matrix, found.low, found.high)
    matrix, low, high = (pd.DataFrame(part, names, names) for part in parts)
    figure = correlation_heat(
        matrix, low, high, quantity=view.quantity, method=method.capitalize(), concepts=found.concepts, basis=basis
    )
    rows = [
        (names[i], names[j], view.quantity, method, *(part[i, j] for part in parts), found.concepts)
        for i, j in zip(*np.triu_indices(len(names), 1), strict=True)
    ]
    columns = ["first", "second", "quantity", "method", "r", "low", "high", "concepts"]
    return figure_report(figure, pd.DataFrame(rows, columns=columns))


for _method in METHODS:
    register(f"correlation-{_method}", *DELTA_PARAMETERS, "quantity", possible=several)(
        partial(correlation, method=_method)
    )


@register("scatter-matrix", *DELTA_PARAMETERS, "quantity", possible=several)
def every_two(atlas: Atlas, view: ReportView) -> Report:
    """Every two models against each other."""
    values, basis = _values(atlas, view), view_basis(atlas, view, atlas.models[0])
    return figure_report(scatter_matrix(values, quantity=view.quantity, basis=basis), values.reset_index())
