"""An atlas as files for a paper or another program: every table, and every figure that the atlas supports.

    OUT/export.json         where all of it comes from, what is there and what was left out
    OUT/tables/*.csv        with a .json each, or *.parquet
    OUT/figures/*.html      or .json, .png, .svg

`tables` and `figures` say what there is, `files` writes figures, `origin` says where a file comes from. The folder is
whole or absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.files import write_json
from precompute.export.figures import drawings
from precompute.export.files import check_formats, write_figure, write_script
from precompute.export.folder import MARK, whole_folder
from precompute.export.origin import origin_of
from precompute.export.tables import check_format, tables_of, write_table

Progress = Callable[[int, int], None]


class Exported(NamedTuple):
    """What an export wrote."""

    out: Path
    tables: list[str]
    """Files relative to `out`."""
    figures: list[str]
    """Files relative to `out`."""
    skipped: dict[str, str]
    """Per figure that the atlas does not support, why."""


def export(
    atlas: Atlas,
    out: Path,
    task: Callable[[str, str], Progress],
    *,
    table_format: str | None = "csv",
    figure_formats: Sequence[str] = ("html", "json"),
) -> Exported:
    """Write tables and figures of an atlas into the new folder `out`; an earlier export there is replaced.

    Args:
        atlas: the atlas.
        out: the folder.
        task: given a name and a unit, gives what is called with the work done and all work.
        table_format: `csv` or `parquet`; None for no tables.
        figure_formats: any of `html`, `json`, `png` and `svg`; empty for no figures.

    Raises:
        BlindspotError: `out` holds something else, or a format is unknown or cannot be drawn here.
    """
    if table_format is not None:
        check_format(table_format)
    check_formats(figure_formats)
    with whole_folder(out) as folder:
        tables = _tables(atlas, folder, table_format, task) if table_format else []
        figures, skipped = _figures(atlas, folder, figure_formats, task) if figure_formats else ([], {})
        found = {"tables": tables, "figures": figures, "skipped": skipped}
        write_json(folder / MARK, origin_of(atlas, "export") | found)
    return Exported(out, tables, figures, skipped)


def _tables(atlas: Atlas, folder: Path, kind: str, task: Callable[[str, str], Progress]) -> list[str]:
    named = tables_of(atlas)
    progress, written = task("tables", "tables"), []
    for number, (name, load) in enumerate(named.items(), start=1):
        written += write_table(load(), folder / "tables" / name, kind, origin_of(atlas, name))
        progress(number, len(named))
    return [path.relative_to(folder).as_posix() for path in written]


def _figures(
    atlas: Atlas, folder: Path, formats: Sequence[str], task: Callable[[str, str], Progress]
) -> tuple[list[str], dict[str, str]]:
    named = drawings(atlas)
    progress, written, skipped = task("figures", "figures"), [], {}
    for number, (name, draw) in enumerate(named.items(), start=1):
        try:
            figure = draw()
        except BlindspotError as error:
            skipped[name] = str(error)
        else:
            written += write_figure(figure, folder / "figures" / name, formats, origin_of(atlas, name))
        progress(number, len(named))
    if "html" in formats and written:
        write_script(folder / "figures")
    return [path.relative_to(folder).as_posix() for path in written], skipped
