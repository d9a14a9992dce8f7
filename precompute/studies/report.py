"""What a study says on stdout: its table in a few columns, what was missed, and where the files are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from precompute.studies.files import Study

COLUMNS = {
    "sweep": ("strength", "score", "score_error", "codes_score", "diversity", "slope", "kid", "frechet", "seconds"),
    "levels": ("share", "target", "score", "score_error", "real_score", "strength", "diversity", "kid"),
    "neurons": ("name", "score_correlation", "selectivity", "share", "concept_share", "diversity", "kid"),
    "methods": ("method", "score", "of_target", "strength", "frechet", "kid", "diversity", "slope", "seconds"),
    "injection": ("ratio", "strength", "score", "score_error", "task", "drift", "bound"),
}
"""Of the table, those that are printed."""
SHORT = {"score_error": "±", "codes_score": "codes", "real_score": "real", "score_correlation": "correlation",
         "concept_share": "concept"}  # fmt: skip
"""What they are called, where their name is long."""
WIDTH = 110
"""Characters a table may take where the terminal does not say that it has more."""


def print_study(study: Study, out: Path) -> None:
    """Print a study's table, a line for each note, and the folder."""
    console = Console(soft_wrap=True, highlight=False, width=max(Console().width, WIDTH))
    table, columns = study.tables["table"], COLUMNS[study.what]
    drawn = Table(*(SHORT.get(column, column) for column in columns), box=None, pad_edge=False)
    for entry in table[list(columns)].itertuples(index=False):
        drawn.add_row(*map(_cell, entry))
    console.print(drawn)
    if "note" in table:
        for entry in table[table["note"] != ""].itertuples(index=False):
            row = entry[0] if isinstance(entry[0], str) else f"{columns[0]} {entry[0]:g}"
            console.print(f"- {row}: {entry.note}", markup=False)
    console.print(f"{out}: table.csv, figure.html, grid.png, study.json", markup=False)


def _cell(value: object) -> str:
    """A number in four digits; nothing for one that does not exist."""
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.4g}"
