"""Threshold against tilt on the planar mixture, exactly; and what samplers draw there, as a benchmark measured it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures import theory as figures
from engine.files import DATA
from engine.klsc.diagnosis import Diagnosis, diagnose
from engine.klsc.mixture import NODES, AngularConcept, Grid, Mixture, ScoreLaw, score_law
from engine.klsc.threshold import threshold_speed
from engine.klsc.tilt import tilt_speed
from engine.reports.base import Report, ReportView, figure_report, register

MEASURED = DATA / "theory" / "mixture.json"
"""What COMMAND printed."""
COMMAND = "python -m precompute benchmark mixture --json"
TARGETS = (4.1, 7.7)
"""Mean scores on offer: from just above the prior's to just below the highest."""
CURVE = np.round(np.linspace(*TARGETS, 19), 2)
"""Mean scores of the curves."""
CURVE_NODES = 2**15
"""Quadrature nodes of a point on a curve: good to 5e-5."""
MIXTURE, CONCEPT, GRID = Mixture(), AngularConcept(), Grid(side=40)
METHODS = {
    "exact tilt": "the tilt itself, exact",
    "energydps at beta": "EnergyDPS at the tilt's β",
    **{f"energydps-smc, {count} particles": f"SMC, {count} particles" for count in (4, 16, 64, 256)},
    "energydps calibrated": "EnergyDPS, calibrated",
    "retrieval": "retrieval",
    "optimisation": "optimisation",
}
"""The benchmark's names of its methods, and what a person reads."""


@cache
def _law(nodes: int) -> ScoreLaw:
    return score_law(MIXTURE, CONCEPT, nodes)


@cache
def _diagnosed(target: float, nodes: int) -> Diagnosis:
    law = _law(nodes)
    return diagnose(law.scores, target, law.log_weights)


def _rows(target: float, nodes: int) -> list[dict[str, Any]]:
    """Return both laws at one mean score: knob, biases and TV speed."""
    found, law = _diagnosed(target, nodes), _law(nodes)
    sides = (
        ("hard", found.threshold, found.hard, threshold_speed(law.scores, found.threshold, law.log_weights)),
        ("tilt", found.beta, found.tilt, tilt_speed(law.scores, found.beta, law.log_weights)),
    )
    return [
        {"target": target, "law": name, "knob": knob, **biases._asdict(), "tv_speed": speed}
        for name, knob, biases, speed in sides
    ]


@cache
def _curves() -> pd.DataFrame:
    return pd.DataFrame([row for target in CURVE for row in _rows(float(target), CURVE_NODES)])


@register("theory-numbers", "target")
def numbers(atlas: Atlas, view: ReportView) -> Report:
    """Both laws at the view's mean score in numbers."""
    return Report(f"Threshold and tilt at mean score {view.target:g}", pd.DataFrame(_rows(view.target, NODES)))


@register("theory-planes", "target")
def planes(atlas: Atlas, view: ReportView) -> Report:
    """The prior and both laws at the view's mean score over the plane."""
    found = _diagnosed(view.target, NODES)

    def above(points: np.ndarray) -> np.ndarray:
        return np.where(CONCEPT(points) > found.threshold, MIXTURE.log_density(points), -np.inf)

    logs = {
        "prior": GRID.log_masses(MIXTURE.log_density),
        "threshold": GRID.log_masses(above),
        "tilt": GRID.log_masses(lambda points: MIXTURE.log_density(points) + found.beta * CONCEPT(points)),
    }
    masses = {name: np.exp(cells).reshape(GRID.side, GRID.side) for name, cells in logs.items()}
    subtitle = (
        f"exact, mean score {view.target:g}: threshold at s = {found.threshold:.3f}, tilt with β = {found.beta:.4f}; "
        f"n = {GRID.side} x {GRID.side} cells"
    )
    centres = GRID.reach * (2 * np.arange(GRID.side) + 1 - GRID.side) / GRID.side
    places = {"x1": np.repeat(centres, GRID.side), "x2": np.tile(centres, GRID.side)}
    table = pd.DataFrame(places | {name: cells.ravel() for name, cells in masses.items()})
    return figure_report(figures.planar_laws(masses, reach=GRID.reach, subtitle=subtitle), table)


@register("theory-biases")
def biases(atlas: Atlas, view: ReportView) -> Report:
    """The four biases of both laws against their mean score."""
    return figure_report(figures.bias_curves(_curves(), nodes=CURVE_NODES), _curves())


@register("theory-speeds")
def speeds(atlas: Atlas, view: ReportView) -> Report:
    """How fast both laws change with their mean score."""
    rows = _curves()
    return figure_report(figures.tv_speeds(rows, nodes=CURVE_NODES), rows[["target", "law", "tv_speed"]])


def measured_rows() -> pd.DataFrame:
    """Read what the benchmark measured: a row per target and method, KL in nats, means in score units.

    Raises
    ------
    BlindspotError
        If the file is missing or not the benchmark's.
    """
    try:
        reports = json.loads(MEASURED.read_text())
        rows = [
            {"target": float(one["target"]), "beta": one["beta"], "method": name, **one[key]}
            for one in reports
            for key, name in METHODS.items()
        ]
        return pd.DataFrame(rows).astype({"mean": float, "kl_tilt": float, "kl_prior": float})
    except FileNotFoundError as error:
        raise BlindspotError(f"The samplers were not measured yet: run `{COMMAND} > {MEASURED}`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BlindspotError(f"{MEASURED} is not what `{COMMAND}` prints: write it anew.") from error


def sample_count(rows: pd.DataFrame) -> int:
    """Return how many samples each diffusion method drew: the particles of all filters together."""
    filtered = rows[rows["filters"].notna()]
    particles = filtered["method"].str.extract(r"(\d+)", expand=False).astype(int)
    return int((filtered["filters"] * particles).max())


@register("theory-samplers", possible=lambda atlas: MEASURED.is_file())
def samplers(atlas: Atlas, view: ReportView) -> Report:
    """What samplers draw at each mean score: knob, mean, KL to the tilt and to the prior."""
    rows = measured_rows()
    shown = rows[rows["method"] != METHODS["exact tilt"]]
    return figure_report(figures.tilt_distances(shown, samples=sample_count(rows)), rows)
