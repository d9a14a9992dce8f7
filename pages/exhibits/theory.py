"""Threshold against tilt on the planar mixture, exactly; and what samplers draw there, as a benchmark measured it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import BlindspotError
from engine.figures import theory
from engine.files import DATA
from engine.klsc.diagnosis import Diagnosis, diagnose
from engine.klsc.mixture import NODES, AngularConcept, Grid, Mixture, ScoreLaw, score_law
from engine.klsc.threshold import threshold_speed
from engine.klsc.tilt import tilt_speed
from pages.exhibits.base import Exhibit, Maker, drawn
from pages.widgets.state import TARGETS, View

MEASURED = DATA / "theory" / "mixture.json"
"""What COMMAND printed."""
COMMAND = "python -m precompute benchmark mixture --json"
CURVE_NODES = 2**15
"""Quadrature nodes of a point on a curve: good to 5e-5."""
CURVE = np.round(np.linspace(*TARGETS, 19), 2)
"""Mean scores of the curves."""
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


@cache
def _prior() -> np.ndarray:
    return GRID.log_masses(MIXTURE.log_density)


def numbers(view: View) -> Exhibit:
    """Both laws at the view's mean score in numbers."""
    return Exhibit(f"Threshold and tilt at mean score {view.target:g}", pd.DataFrame(_rows(view.target, NODES)))


def planes(view: View) -> Exhibit:
    """The prior and both laws at the view's mean score over the plane."""
    found = _diagnosed(view.target, NODES)

    def above(points: np.ndarray) -> np.ndarray:
        return np.where(CONCEPT(points) > found.threshold, MIXTURE.log_density(points), -np.inf)

    logs = {
        "prior": _prior(),
        "threshold": GRID.log_masses(above),
        "tilt": GRID.log_masses(lambda points: MIXTURE.log_density(points) + found.beta * CONCEPT(points)),
    }
    masses = {name: np.exp(cells).reshape(GRID.side, GRID.side) for name, cells in logs.items()}
    subtitle = (
        f"exact, mean score {view.target:g}: threshold at s = {found.threshold:.3f}, tilt with β = {found.beta:.4f}; "
        f"n = {GRID.side} x {GRID.side} cells"
    )
    figure = theory.planar_laws(masses, reach=GRID.reach, subtitle=subtitle)
    centres = GRID.reach * (2 * np.arange(GRID.side) + 1 - GRID.side) / GRID.side
    places = {"x1": np.repeat(centres, GRID.side), "x2": np.tile(centres, GRID.side)}
    return drawn(figure, pd.DataFrame(places | {name: cells.ravel() for name, cells in masses.items()}))


def biases(view: View) -> Exhibit:
    """The four biases of both laws against their mean score."""
    return drawn(theory.bias_curves(_curves(), nodes=CURVE_NODES), _curves())


def speeds(view: View) -> Exhibit:
    """How fast both laws change with their mean score."""
    return drawn(theory.tv_speeds(_curves(), nodes=CURVE_NODES), _curves()[["target", "law", "tv_speed"]])


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
            {"target": float(report["target"]), "beta": report["beta"], "method": name, **report[key]}
            for report in reports
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


def samplers(view: View) -> Exhibit:
    """What samplers draw at each mean score: knob, mean, KL to the tilt and to the prior."""
    rows = measured_rows()
    shown = rows[rows["method"] != METHODS["exact tilt"]]
    return drawn(theory.tilt_distances(shown, samples=sample_count(rows)), rows)


MAKERS = {
    "theory-numbers": Maker(numbers, ("target",)),
    "theory-planes": Maker(planes, ("target",)),
    "theory-biases": Maker(biases, ()),
    "theory-speeds": Maker(speeds, ()),
    "theory-samplers": Maker(samplers, ()),
}
