"""What models share: universal and specific blindspots, and how alike the models are in what they miss."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.blindspots.correlation import correlate_models
from engine.blindspots.distribution import shared_blindspots
from engine.figures import compare
from engine.figures.tables import certain
from pages.exhibits.base import DELTA_KEYS, Exhibit, Maker, drawn
from pages.exhibits.blindspots import live_tables
from pages.widgets import data
from pages.widgets.state import View


def shared(view: View) -> Exhibit:
    """Universal and specific blindspots, and those that miss the view's margin: -1 suppressed, 1 exaggerated, 0 no."""
    tables = live_tables(view)
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
    return Exhibit("Universal and specific blindspots", pd.DataFrame(columns))


def members(rows: pd.DataFrame, column: str, sign: int, models: list[str]) -> pd.DataFrame:
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


def _compared(view: View) -> pd.DataFrame:
    """Return the view's quantity, live concepts x models."""
    tables = live_tables(view)
    return pd.DataFrame({model: table[view.quantity] for model, table in tables.items()})


def correlation(view: View, method: str) -> Exhibit:
    """Correlation of every two models, with its interval."""
    values = _compared(view)
    found = correlate_models(values.to_numpy().T, method=method)
    square = [pd.DataFrame(matrix, index=list(values), columns=list(values)) for matrix in found[1:]]
    figure = compare.correlation_heat(
        *square, quantity=view.quantity, method=method.capitalize(), concepts=found.concepts, basis=data.basis(view)
    )
    names = list(values)
    rows = [
        (names[i], names[j], view.quantity, method, *(matrix.iat[i, j] for matrix in square), found.concepts)
        for i in range(len(names)) for j in range(i + 1, len(names))
    ]  # fmt: skip
    columns = ["first", "second", "quantity", "method", "r", "low", "high", "concepts"]
    return drawn(figure, pd.DataFrame(rows, columns=columns))


def pairs(view: View) -> Exhibit:
    """Every two models against each other."""
    values = _compared(view)
    figure = compare.scatter_matrix(values, quantity=view.quantity, basis=data.basis(view))
    return drawn(figure, values.reset_index())


AGREEMENT_KEYS = (*DELTA_KEYS, "quantity")
MAKERS = {
    "shared-blindspots": Maker(shared, (*DELTA_KEYS, "margin")),
    "correlation-pearson": Maker(lambda view: correlation(view, "pearson"), AGREEMENT_KEYS),
    "correlation-spearman": Maker(lambda view: correlation(view, "spearman"), AGREEMENT_KEYS),
    "scatter-matrix": Maker(pairs, AGREEMENT_KEYS),
}
