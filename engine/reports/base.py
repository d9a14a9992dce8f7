"""What a report is, the parameters it depends on, and the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.blindspots.delta import ESTIMATORS
from engine.blindspots.distribution import MARGIN
from engine.errors import BlindspotError
from engine.figures.style import Basis

DELTA_PARAMETERS = ("estimator", "temperature", "low", "high")
"""What every table of deltas depends on."""
MODEL_PARAMETERS = ("model", *DELTA_PARAMETERS, "reference")


class Report(NamedTuple):
    """A figure and the table behind it."""

    title: str
    """What it shows."""
    table: pd.DataFrame
    """The numbers; everything that identifies a row is a column."""
    figure: go.Figure | None = None
    """None for what is a table only."""


@dataclass(frozen=True)
class ReportView:
    """The parameters that a report may depend on."""

    model: str
    models: tuple[str, ...] = ()
    """Models to compare with each other."""
    image: int | None = None
    """An image of the pair to look at; None for the pair of largest divergence."""
    estimator: str = "gap"
    temperature: float = 0.8
    low: float = 0.1
    """Delta below which a concept is suppressed."""
    high: float = 0.9
    """Delta above which a concept is exaggerated."""
    reference: str = REAL
    """What models are compared with: the real images or another model."""
    quantity: str = "relative"
    """What models are correlated on: ``relative`` (the relative gap) or ``delta``."""
    margin: float = MARGIN
    """How far inside the threshold every other model is for a blindspot of one model alone."""
    target: float = 6.0
    """Mean score that threshold and tilt have on the planar mixture."""
    text: str = ""
    """Words that a concept's label or words must all match; with the following, what narrows a selection."""
    status: tuple[str, ...] = ()
    """Of ``suppressed``, ``neutral`` and ``exaggerated`` those to keep; all if empty."""
    frequency: float = 0.0
    """Least share of real images in which a concept fires."""
    q: float = 1.0
    """Largest Benjamini-Hochberg q."""
    cluster: tuple[str, ...] = ()
    """Clusters to keep; all if empty."""
    within: tuple[str, ...] = ()
    """Ranges of delta, ``MODEL:LOW:HIGH``."""
    ids: str = ""
    """A set of concepts (`engine.reports.selection.pack_concepts`); all if empty."""
    sort: str = ""
    """One of `engine.reports.selection.SORTS`, or ``of:MODEL``; a minus before it turns the order round."""

    @classmethod
    def of(cls, atlas: Atlas, **changes: Any) -> ReportView:
        """Return an atlas's defaults with some changed; another estimator brings its own temperature."""
        used, models = atlas.info.delta, tuple(atlas.models)
        view = cls(models[0], models[:2], None, used.estimator, used.temperature, used.suppressed, used.exaggerated)
        estimator = changes.get("estimator", used.estimator)
        if estimator != used.estimator and estimator in ESTIMATORS:
            view = replace(view, temperature=ESTIMATORS[estimator].temperature)
        return replace(view, **changes)


Make = Callable[[Atlas, ReportView], Report]


class Entry(NamedTuple):
    """One report of the registry."""

    make: Make
    parameters: tuple[str, ...]
    """The fields of `ReportView` that it depends on."""
    possible: Callable[[Atlas], bool]
    """Whether an atlas has what it needs."""


REPORTS: dict[str, Entry] = {}
"""Every report by name."""


def register(
    name: str, *parameters: str, possible: Callable[[Atlas], bool] = lambda atlas: True
) -> Callable[[Make], Make]:
    """Enter the decorated function into `REPORTS`; see `Entry` for the arguments."""

    def enter(make: Make) -> Make:
        REPORTS[name] = Entry(make, parameters, possible)
        return make

    return enter


def report(atlas: Atlas, name: str, view: ReportView | None = None, **changes: Any) -> Report:
    """Return one of `REPORTS` for an atlas.

    Parameters
    ----------
    atlas
        An opened atlas.
    name
        One of `report_names`.
    view
        Its parameters, by default the atlas's own. Anything with the fields of `ReportView` will do.
    **changes
        Fields of `ReportView` to change, such as ``model="woody"``.

    Raises
    ------
    BlindspotError
        If there is no such report, or the atlas has not what it needs.
    """
    if name not in REPORTS:
        raise BlindspotError(f"There is no report {name!r}: choose one of {', '.join(REPORTS)}.")
    if view is None:
        view, changes = ReportView.of(atlas, **changes), {}
    return REPORTS[name].make(atlas, replace(view, **changes))


def report_names(atlas: Atlas) -> list[str]:
    """Return the names of the reports that an atlas supports."""
    return [name for name, entry in REPORTS.items() if entry.possible(atlas)]


def figure_report(figure: go.Figure, table: pd.DataFrame) -> Report:
    """Return a report that has a figure; its title is the figure's."""
    return Report(figure.layout.title.text, table, figure)


@lru_cache(maxsize=32)
def concept_table(atlas: Atlas, model: str, estimator: str, temperature: float, reference: str = REAL) -> pd.DataFrame:
    """Return the concept table of one model: layout, words, delta with its interval, frequency; indexed by concept.

    The same table is returned again to the next caller, so none may change it.
    """
    delta = atlas.delta(model, estimator, temperature, reference)
    concepts = atlas.concepts.assign(label=atlas.shown_labels())
    return concepts.join(delta).assign(frequency=np.asarray(atlas.frequency(), np.float32))


def view_table(atlas: Atlas, view: ReportView, model: str | None = None) -> pd.DataFrame:
    """Return the concept table at a view's estimator and temperature, of its model unless another is named."""
    return concept_table(atlas, model or view.model, view.estimator, view.temperature, view.reference)


def view_basis(atlas: Atlas, view: ReportView, model: str | None = None) -> Basis:
    """Return what the deltas of a view's model, or of another one, are computed with."""
    source = atlas.info.source(model or view.model)
    against_real = view.reference == REAL or source.name == view.reference
    paired = source.paired if against_real else bool(view_table(atlas, view, model)["paired"].iloc[0])
    return Basis(view.estimator, view.temperature, view.low, view.high, source.images, paired, view.reference)


def has(name: str) -> Callable[[Atlas], bool]:
    """Return whether an atlas holds a table or an analysis, as a test of atlases."""
    return lambda atlas: atlas.has(name)


def several(atlas: Atlas) -> bool:
    """Return whether an atlas has more than one model."""
    return len(atlas.models) > 1
