"""Reports of the opened atlas with their addresses: what pages show and browsers fetch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from engine.reports import REPORTS, Report, ReportView, report, samplers
from pages.widgets import data, state

SAMPLER_IMAGES = "/atlas/samplers"
"""The app hands `engine.reports.samplers.FOLDER` to the browser below this address."""


class FoundReport(NamedTuple):
    """A report with its address."""

    name: str
    query: str
    """The parameters of the view that it depends on, as an URL carries them."""
    report: Report

    @property
    def exhibit(self) -> Report:
        """The former name of `report`."""
        return self.report

    def path(self, suffix: str) -> str:
        """Return the path of its figure (``json``) or of a file to take along (``csv``, ``html``)."""
        return f"exhibit/{self.name}.{suffix}" + (f"?{self.query}" if self.query else "")


def find_report(name: str, view: state.View) -> FoundReport:
    """Return a report of the opened atlas; only the parameters of the view that it depends on count.

    Raises
    ------
    LookupError
        If there is no such report.
    BlindspotError
        If the atlas has not what it needs.
    """
    known = data.known(data.atlas_path())
    params = state.write(view, known, REPORTS[name].parameters)
    reduced = state.read(params, known)
    return FoundReport(name, urlencode(params), _report(data.atlas_path(), name, reduced))


@lru_cache(maxsize=24)
def _report(path: Path, name: str, view: ReportView) -> Report:
    return report(data.open_atlas(path), name, view)


def sampler_image(concept: int) -> str:
    """Return the address of the images that samplers drew of a concept; it changes with the file."""
    return f"{SAMPLER_IMAGES}/{concept}.webp?{(samplers.FOLDER / f'{concept}.webp').stat().st_mtime_ns}"
