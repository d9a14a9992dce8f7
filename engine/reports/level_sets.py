"""Level sets in the plane: members of three queries' curves, live, and the laws that a command measured."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures import level_sets as figures
from engine.files import DATA
from engine.reports.base import Report, ReportView, figure_report, register

MEASURED = DATA / "theory" / "level_set.json"
"""What COMMAND printed."""
AXES, MEMBERS = (2.0, 0.7), 20_000
COMMAND = f"python -m precompute theory --level-set {AXES[0]:g} {AXES[1]:g} --members {MEMBERS} --json"
QUERIES = ((0.9, 0.0), (0.0, -1.05), (-0.8, 0.8))
SHOWN = 250
"""Members of each query's set that are drawn."""
REACH, SIDE = 3.0, 121


def measured() -> dict[str, Any]:
    """Read what the command measured: method to arcs, tv, chi_square, residual, converged and evaluations.

    Raises
    ------
    BlindspotError
        If the file is missing or not the command's.
    """
    try:
        found = json.loads(MEASURED.read_text())
        for method in figures.METHODS:
            if not np.isfinite([*found[method]["arcs"], found[method]["tv"], found[method]["evaluations"]]).all():
                raise ValueError(method)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BlindspotError(f"{MEASURED} is not what `{COMMAND}` prints: write it anew.") from error
    return found


@register("theory-level-set", possible=lambda atlas: MEASURED.is_file())
def laws(atlas: Atlas, view: ReportView) -> Report:
    """Share of the members of an ellipse in each arc, by method, and exactly."""
    from engine.invariance.planar import Ellipse

    shares = {"exact": Ellipse(*AXES).law().tolist()} | {
        method: row["arcs"] for method, row in measured().items() if method in figures.METHODS
    }
    rows = pd.DataFrame(
        [
            {"arc": arc, "method": name, "share": share}
            for name, each in shares.items()
            for arc, share in enumerate(each)
        ]
    )
    return figure_report(figures.arc_shares(rows, members=MEMBERS), rows)


@cache
def _circles() -> tuple[Any, dict[str, Any]]:
    import torch

    from engine.invariance import planar

    network = planar.circle_classifier()
    places, outside = planar.circles()
    values = np.linspace(-REACH, REACH, SIDE)
    grid = torch.from_numpy(np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2))
    with torch.no_grad():
        responses = network(grid)[:, 0].numpy().reshape(SIDE, SIDE)
        targets = [float(network(torch.tensor([query]).double())) for query in QUERIES]
    sets = {
        f"query ({query[0]:g}, {query[1]:g})": (query, target, planar.sample_curve(network, target, "walk", SHOWN)[0])
        for query, target in zip(QUERIES, targets, strict=True)
    }
    return (places, outside, values, responses), sets


@register("theory-circles")
def circles(atlas: Atlas, view: ReportView) -> Report:
    """Members of the level curves through three queries of a small classifier, drawn when asked for."""
    (points, outside, values, responses), sets = _circles()
    rows = [
        {"query": name, "response": target, "z1": z1, "z2": z2}
        for name, (_, target, members) in sets.items()
        for z1, z2 in members.tolist()
    ]
    return figure_report(figures.level_curves(points, outside, values, responses, sets), pd.DataFrame(rows))
