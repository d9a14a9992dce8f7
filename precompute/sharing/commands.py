"""The commands `publish` and `fetch`, and atlases that `app` is given by their address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import BlindspotError
from precompute.console import ATLASES, AsJson, print_json

WHERE = "hf://OWNER/NAME of a Hugging Face data set, https://..., s3://... and what else fsspec knows, or a folder."


def publish(
    atlas: Annotated[Path, typer.Argument(help="Folder of an atlas.", show_default=False)],
    where: Annotated[
        str, typer.Argument(help="hf://OWNER/NAME (made privately if new), s3://..., or a folder.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Put an atlas where others can fetch it or open it, with the checksums of all its files."""
    from precompute.sharing.transfer import local_models
    from precompute.sharing.transfer import publish as put

    files, left = put(atlas, where), local_models(atlas)
    size = sum(one.bytes for one in files)
    if as_json:
        print_json({"where": where, "files": len(files), "bytes": size, "models_left_out": left})
        return
    typer.echo(f"{where}: {len(files)} files, {size / 2**20:,.1f} MiB. Others open it by: blindspot-atlas app {where}")
    if left:
        typer.echo(
            f"Not published, as they are folders of this machine: {', '.join(left)}. Without them Generate and My "
            "image do not work elsewhere: put them on the hub and name their ids in the recipe."
        )


def fetch(
    where: Annotated[str, typer.Argument(help=WHERE, show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the atlas.", show_default="atlases/ and its name")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring a published atlas here, and check every byte; the same command goes on where it stopped."""
    path = bring(where, out)
    if as_json:
        print_json({"atlas": str(path)})
    else:
        typer.echo(f"{path}: whole. Open it by: blindspot-atlas app {path}")


def bring(where: str, out: Path | None = None) -> Path:
    """Fetch an atlas with a bar; errors as for `precompute.sharing.transfer.fetch`."""
    from precompute.console import Reporter
    from precompute.sharing.transfer import fetch as get

    if "://" not in where and not Path(where).exists():
        raise BlindspotError(f"There is no folder {where}; a data set of the hub is hf://OWNER/NAME.")
    with Reporter() as reporter:
        bar = reporter.task("fetch", "MiB")
        return get(where, out or ATLASES / name_of(where), lambda done, total: bar(done >> 20, total >> 20))


def name_of(where: str) -> str:
    """A folder name for a published atlas: the last part of its address.

    Raises
    ------
    BlindspotError
        If it has none.
    """
    plain = where.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2].partition("@")[0]
    name = re.sub(r"[^\w.-]+", "_", plain).strip(".")
    if not name:
        raise BlindspotError(f"{where} gives the atlas no name: say where it goes with --out.")
    return name
