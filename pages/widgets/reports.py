"""Reports of the opened atlas (`engine.reports`) with their addresses: what pages show and browsers fetch."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import streamlit as st

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.reports import REPORTS, Report, ReportView, report, samplers
from pages.widgets import html, session
from pages.widgets.plot import plot
from pages.widgets.session import View

SAMPLER_IMAGES = "/atlas/samplers"
"""The app hands `engine.reports.samplers.FOLDER` to the browser below this address."""


class FoundReport(NamedTuple):
    """A report with its address."""

    name: str
    query: str
    """The parameters of the view that it depends on, as an URL carries them."""
    report: Report

    def path(self, suffix: str) -> str:
        """Return the path of its figure (``json``) or of a file to take along (``csv``, ``parquet``, ``html``)."""
        return f"exhibit/{self.name}.{suffix}" + (f"?{self.query}" if self.query else "")

    @property
    def file(self) -> str:
        """The name of a file of it: what it shows, of which model, with which estimator."""
        used = REPORTS[self.name].parameters
        view = session.read(dict(parse_qsl(self.query)), session.known())
        models = [view.model] if "model" in used else list(view.models) if "models" in used else []
        against = [f"against-{view.reference}"] if "reference" in used and view.reference != REAL else []
        return "_".join([self.name, *models, *against, *([view.estimator] if "estimator" in used else [])])


def find_report(name: str, view: View) -> FoundReport:
    """Return a report of the opened atlas; only the parameters of the view that it depends on count.

    Raises
    ------
    LookupError
        If there is no such report.
    BlindspotError
        If the atlas has not what it needs.
    """
    query = report_query(name, view)
    reduced = session.read(dict(parse_qsl(query)), session.known())
    return FoundReport(name, query, _report(session.atlas(), name, reduced))


def report_query(name: str, view: View) -> str:
    """Return the parameters of a view that a report depends on, as an URL carries them."""
    return urlencode(session.write(view, session.known(), REPORTS[name].parameters))


@lru_cache(maxsize=24)
def _report(atlas: Atlas, name: str, view: ReportView) -> Report:
    return report(atlas, name, view)


def sampler_image(concept: int) -> str:
    """Return the address of the images that samplers drew of a concept; it changes with the file."""
    return f"{SAMPLER_IMAGES}/{concept}.webp?{(samplers.FOLDER / f'{concept}.webp').stat().st_mtime_ns}"


def show_report(name: str, view: View, narrow_height: int | None = None) -> None:
    """Show a report's figure below its title and downloads, or why there is none; a click on a concept opens its card.

    `narrow_height` is its height on a phone, if that is another one.
    """
    if missing(name, view):
        return
    found = find_report(name, view)
    figure, source = found.report.figure, found.path("json")
    html.show("parts.of_figure", key=f"how_{name}", figure=figure, found=found)
    plot(
        source=source, height=figure.layout.height, key=name, narrow_source=source if narrow_height else None,
        narrow_height=narrow_height, opens=html.address({"model": view.model, "concept": "CONCEPT"}, "concept_map"),
        lights=html.address({"model": view.model, "within": "RANGES"}, "concept_map"),
    )  # fmt: skip


def missing(name: str, view: View) -> bool:
    """Return whether there is no such report of this atlas, and if so say why in one sentence."""
    try:
        find_report(name, view)
    except BlindspotError as error:
        st.info(html.plain(error, code=True))
        return True
    return False
