"""The figures of an atlas at its own estimator and thresholds: what each model does with concepts, and the dictionary.

Each is drawn when asked for; one that the atlas does not support raises `BlindspotError` then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.atlas.storage import read_table
from engine.blindspots.correlation import METHODS, correlate_models
from engine.blindspots.distribution import delta_distribution, frequency_bands, rank_concepts
from engine.errors import BlindspotError
from engine.figures import compare, dictionary, distribution
from engine.figures.map import concept_map, model_maps
from engine.figures.style import Basis
from engine.figures.tables import most_different
from precompute.export.analysis_figures import analysis_drawings

Draw = Callable[[], go.Figure]
RANKED = 15
"""Concepts at either end of a ranking."""
MAPS = 4
"""Most maps in one figure."""
PAPER = ("relative", 0.4)
"""Estimator and temperature that paper 004 reads misalignment against frequency at."""


def drawings(atlas: Atlas) -> dict[str, Draw]:
    """Per file name without its ending, what draws the figure."""
    deltas = Deltas(atlas)
    named: dict[str, Draw] = {"distribution": deltas.distribution}
    for model in atlas.models:
        named[f"map_{model}"] = partial(deltas.map, model)
        named[f"ranking_{model}"] = partial(deltas.ranking, model)
        named[f"frequency_{model}"] = partial(deltas.frequency, model)
    if len(atlas.models) > 1:
        named |= {"maps": deltas.maps} if len(atlas.models) <= MAPS else {}
        for quantity in ("delta", "relative"):
            named[f"scatter_{quantity}"] = partial(deltas.scatter, quantity)
            for method in METHODS:
                named[f"correlation_{quantity}_{method}"] = partial(deltas.correlation, quantity, method)
    return named | analysis_drawings(atlas) | dict(_dictionary(atlas))


class Deltas:
    """The figures of delta over concepts."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self.table = lru_cache(maxsize=None)(self._table)

    def _table(self, model: str) -> pd.DataFrame:
        delta = self.atlas.delta(model, self.atlas.info.delta.estimator)
        return self.atlas.concepts.join(delta).assign(frequency=np.asarray(self.atlas.frequency(), np.float32))

    def basis(self, model: str, estimator: str | None = None, temperature: float | None = None) -> Basis:
        """What the deltas of a model are computed with."""
        used, source = self.atlas.info.delta, self.atlas.info.source(model)
        return Basis(
            estimator or used.estimator,
            temperature or used.temperature,
            used.suppressed,
            used.exaggerated,
            source.images,
            source.paired,
        )

    def map(self, model: str) -> go.Figure:
        """One model's concept map, without the buttons that recolour it."""
        figure = concept_map(self.table(model), model=model, basis=self.basis(model))
        figure.layout.updatemenus = ()
        return figure

    def maps(self) -> go.Figure:
        """All models' maps."""
        tables = {model: self.table(model) for model in self.atlas.models}
        return model_maps(tables, basis=self.basis(self.atlas.models[0]))

    def distribution(self) -> go.Figure:
        """The densities of delta."""
        used = self.atlas.info.delta
        limits = {"suppressed": used.suppressed, "exaggerated": used.exaggerated}
        found = {
            model: delta_distribution(_live(self.table(model))["delta"].to_numpy(), **limits)
            for model in self.atlas.models
        }
        centres = next(iter(found.values())).centres
        densities = pd.DataFrame({model: one.density for model, one in found.items()}, index=centres)
        columns = ("concepts", "median", "skewness", "suppressed", "exaggerated")
        summary = pd.DataFrame([[getattr(one, name) for name in columns] for one in found.values()], found, columns)
        return distribution.delta_densities(densities, summary, basis=self.basis(self.atlas.models[0]))

    def ranking(self, model: str) -> go.Figure:
        """Both ends of a model's ranking, those with a small q first."""
        rows = _live(self.table(model))
        if len(rows) > 2 * RANKED:
            ends = pd.concat([most_different(rows, side, RANKED) for side in ("suppressed", "exaggerated")])
            rows = ends[~ends.index.duplicated()]
        rows = rows.iloc[rank_concepts(rows["delta"].to_numpy(), rows["gap"].to_numpy())]
        return distribution.delta_ranking(rows, model=model, basis=self.basis(model))

    def frequency(self, model: str) -> go.Figure:
        """A model's misalignment against frequency in real images."""
        energies = read_table(self.atlas.path, "energies").to_pandas()
        fires = energies[energies["source"] == REAL].set_index("concept")["fires"]
        if fires.isna().any():
            raise BlindspotError(f"The atlas {self.atlas.path} does not say how often its concepts fire.")
        shown = pd.DataFrame({"fires": fires, "value": self.atlas.delta(model, *PAPER)["delta"]})
        found = frequency_bands(shown["fires"].to_numpy(), shown["value"].to_numpy())
        bands = pd.DataFrame(found.bands.T, found.centres, ["low", "middle", "high"])
        basis = self.basis(model, *PAPER)
        return distribution.frequency_scatter(shown, bands, model=model, spearman=found.spearman, basis=basis)

    def values(self, quantity: str) -> pd.DataFrame:
        """Live concepts x models."""
        return pd.DataFrame({model: _live(self.table(model))[quantity] for model in self.atlas.models}).dropna()

    def scatter(self, quantity: str) -> go.Figure:
        """Every two models against each other."""
        basis = self.basis(self.atlas.models[0])
        return compare.scatter_matrix(self.values(quantity), quantity=quantity, basis=basis)

    def correlation(self, quantity: str, method: str) -> go.Figure:
        """The correlation of every two models."""
        values, models = self.values(quantity), self.atlas.models
        found = correlate_models(values.to_numpy().T, method=method)
        squares = (pd.DataFrame(matrix, models, models) for matrix in (found.matrix, found.low, found.high))
        said = {"quantity": quantity, "method": method.capitalize(), "concepts": found.concepts}
        return compare.correlation_heat(*squares, **said, basis=self.basis(models[0]))


def _live(table: pd.DataFrame) -> pd.DataFrame:
    """The concepts that count: not dead, and with a delta."""
    return table[~table["dead"].to_numpy(bool) & table["delta"].notna().to_numpy()]


def _dictionary(atlas: Atlas) -> Iterator[tuple[str, Draw]]:
    found = atlas.dictionary_report()
    if found is None:
        return
    summary, concepts = found
    columns = {name: concepts[name].to_numpy() for name in ("frequency", "coherence", "hull_distance", "stability")}
    hull, stability = summary["hull"], summary["stability"]
    points = {"points": hull["points"], "own": hull["own_points"]}
    yield (
        "dictionary_frequency",
        partial(dictionary.frequency_histogram, columns["frequency"], tokens=summary["tokens"]),
    )
    yield "dictionary_l0", partial(dictionary.l0_histogram, summary["l0_counts"])
    yield "dictionary_coherence", partial(dictionary.coherence_histogram, columns["coherence"])
    yield "dictionary_hull", partial(dictionary.hull_histogram, columns["hull_distance"], **points)
    if stability:
        seeds = len(stability["pairs"])
        yield "dictionary_stability", partial(dictionary.stability_histogram, columns["stability"], seeds=seeds)
