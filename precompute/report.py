"""The command `report`: an atlas as one HTML page that a person can send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import BlindspotError
from precompute.console import AsJson, Reporter, print_json
from precompute.drawing import AtlasFolder

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.reports.document import Section

NAMED = ("raters", "by_rater")
"""Tables of a rating study that name people."""


def report(
    atlas: AtlasFolder,
    out: Annotated[Path, typer.Option("--out", help="The page, e.g. report.html.", show_default=False)],
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw figures, by Chromium.")] = True,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained page: what was compared, significant blindspots, stress tests, ratings, methods.

    It asks nothing of any network, and its images are small copies. Ratings are those of studies that have ended.
    """
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained, write_whole
    from engine.reports.document import html_document

    opened = Atlas.open(atlas)
    if out.is_dir():
        raise BlindspotError(f"{out} is a folder: give --out a file, e.g. report.html.")
    with Reporter() as reporter, full_disk_explained(out):
        progress = reporter.task("report", "parts")
        page = html_document(opened, figures=figures, sections=rating_sections(opened), progress=progress)
        write_whole(out, lambda partial: partial.write_text(page, encoding="utf-8"))
    size = len(page.encode("utf-8"))
    if as_json:
        print_json({"atlas": str(atlas), "out": str(out), "bytes": size})
    else:
        typer.echo(f"{out}: {size / 1e6:.1f} MB.")


def rating_sections(atlas: Atlas) -> list[Section]:
    """The tables of the rating studies beside an atlas that have ended: until then nobody sees a method's name.

    Raters are not named.
    """
    from engine.ratings.report import rating_report
    from engine.ratings.store import SUFFIX, RatingStudy, find_studies, studies_folder
    from engine.reports.document import Section

    found = []
    for name in find_studies(atlas.path):
        study = RatingStudy.open(studies_folder(atlas.path) / f"{name}{SUFFIX}")
        if study.ended:
            made = rating_report(study)
            tables = {title: table for title, table in made.tables.items() if title not in NAMED and len(table)}
            raters = made.ratings["rater"].nunique() if len(made.ratings) else 0
            note = f"Protocol {made.protocol}: {made.items} items, {len(made.ratings):,} ratings by {raters} raters."
            found.append(Section(f"Ratings: {made.study}", note, tables))
    return found
