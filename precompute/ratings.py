"""The commands `ratings prepare | rate | report | end`: blinded studies of images by people and model readers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from precompute.console import AsJson, print_json
from precompute.drawing import AtlasFolder, DeviceOption
from precompute.labelling.command import (
    Again,
    BaseUrl,
    Budget,
    Concurrency,
    DryRun,
    PerMinute,
    PriceIn,
    PriceOut,
    Retries,
    Timeout,
    print_plan,
)

if TYPE_CHECKING:
    from engine.ratings.report import RatingReport

ratings = typer.Typer(
    help="Blinded ratings: who rates does not see which method or model an image is of.", no_args_is_help=True
)

StudyFile = Annotated[
    Path,
    typer.Argument(help="A study, ATLAS.ratings/NAME.sqlite, as `ratings prepare` printed it.", show_default=False),
]


@ratings.command()
def prepare(
    atlas: AtlasFolder,
    protocol: Annotated[
        str, typer.Option("--protocol", help="What is asked: interpretability, captions or errors.")
    ] = "interpretability",
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="Of interpretability: gallery, real, or a folder of `sample` or `study --images`; again for more.",
            show_default="gallery and real",
        ),
    ] = None,
    concepts: Annotated[
        int | None,
        typer.Option(
            "--concepts",
            min=1,
            help="Of interpretability: how many, and as many neurons; of errors: length of an image's list.",
            show_default="all; 20",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Of captions and errors: a model; again for more.", show_default="all"),
    ] = None,
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, help="Of captions: pairs of largest divergence, of each model.")
    ] = 50,
    controls: Annotated[int, typer.Option("--controls", min=0, help="Of captions: other pairs, at random.")] = 0,
    images: Annotated[int, typer.Option("--images", min=1, help="Of errors: images of each source, at random.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is chosen and of each rater's order.")] = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the study, which raters see.", show_default="<protocol>-<number>")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Another folder for it; the app shows those beside the atlas.",
                     show_default="ATLAS.ratings"),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make a study to rate: in the app's page Ratings by people, with `ratings rate` by model readers.

    interpretability: 2 x 2 grids of a concept by a method, scored 1 to 4 and described (arXiv:2605.17504, appendix K).
    captions: is the caption to blame where an image diverges most (Conceptual Blindspots, appendix I).
    errors: which detected concepts cannot be seen, and what is missing (appendix J).
    """
    from engine.atlas.reader import Atlas
    from engine.ratings.preparing import prepare as make
    from engine.ratings.store import free_file, studies_folder

    opened = Atlas.open(atlas)
    folder = out or studies_folder(opened.path)
    path = free_file(folder, protocol, name)
    given: dict[str, dict[str, Any]] = {
        "interpretability": {"sources": sources or (), "concepts": concepts},
        "captions": {"models": models or (), "pairs": pairs, "controls": controls},
        "errors": {"models": models or (), "images": images, "concepts": concepts or 20},
    }
    made = make(opened, path, protocol, seed=seed, **given.get(protocol, {}))
    if as_json:
        print_json(
            {"study": str(made.study.path), "protocol": protocol, "items": made.items, "skipped": dict(made.skipped)}
        )
        return
    typer.echo(f"{made.study.path}: {made.items} items to rate.")
    for what, why in made.skipped.items():
        typer.echo(f"- not {what}: {why}")


@ratings.command()
def rate(
    study: StudyFile,
    reader: Annotated[
        str,
        typer.Option(
            "--reader", help="openai:MODEL, or folder or id of an image-text model of transformers.", show_default=False
        ),
    ],
    base_url: BaseUrl = None,
    dry_run: DryRun = False,
    per_minute: PerMinute = None,
    budget: Budget = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    concurrency: Concurrency = 4,
    retries: Retries = 5,
    timeout: Timeout = 60.0,
    again: Again = False,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Let a model reader rate a study by the protocol of people; what it rated is kept, a second run goes on."""
    from engine.ratings.reading import plan_ratings, rate_with_reader
    from engine.ratings.store import RatingStudy, answers_of
    from engine.readers.loading import load_reader
    from precompute.console import Reporter

    opened = RatingStudy.open(study)
    asked = load_reader(
        reader, cache=answers_of(study), base_url=base_url, device=device, per_minute=per_minute, budget=budget,
        price_in=price_in, price_out=price_out, concurrency=concurrency, retries=retries, timeout=timeout, again=again,
    )  # fmt: skip
    if dry_run:
        plan = plan_ratings(opened, asked)
        print_plan(asked.name, "items", len(opened), plan, as_json)
        return
    with Reporter() as reporter:
        found = rate_with_reader(opened, asked, reporter.task("ratings", "items"))
    if as_json:
        print_json({"reader": found.reader, "rated": found.rated, "kept": found.kept, "missing": found.missing})
        return
    typer.echo(f"{found.reader}: {found.rated} rated, {found.kept} from before.")
    for what, count in found.missing.items():
        typer.echo(f"- {count} {what}")


@ratings.command()
def report(
    study: StudyFile,
    embedding: Annotated[
        str | None,
        typer.Option(
            "--embedding",
            help="For the variance of descriptions: folder or id of CLIP, SigLIP or a sentence encoder.",
            show_default="TF-IDF and LSA",
        ),
    ] = None,
    without: Annotated[
        list[int] | None,
        typer.Option("--without", help="Of errors: a concept whose label is wrong; again for more."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Folder for the ratings and every table as CSV.", show_default=False)
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Folder for the same as parquet.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Print what a study found so far, by method: this unblinds whoever reads it."""
    from engine.ratings.files import write_tables
    from engine.ratings.report import rating_report
    from engine.ratings.store import RatingStudy

    found = rating_report(RatingStudy.open(study), embedding, without or ())
    for folder, suffix in ((csv, "csv"), (parquet, "parquet")):
        if folder is not None:
            write_tables(found, folder, suffix)
    if as_json:
        print_json(found.document())
        return
    print_report(found)


@ratings.command()
def end(study: StudyFile) -> None:
    """End a study: nothing is rated any more, and the app shows its methods and results."""
    from engine.ratings.store import RatingStudy

    opened = RatingStudy.open(study)
    opened.end()
    typer.echo(f"{study} has ended with {sum(one.done for one in opened.progress())} ratings.")


WIDE = 200
"""Columns of a report that no window limits."""


def print_report(found: RatingReport) -> None:
    """Print every table of a report."""
    wide = None if Console().is_terminal else WIDE  # a file or a pipe has no width
    console = Console(soft_wrap=True, highlight=False, width=wide)
    state = "ended" if found.ended else "still open"
    console.print(f"{found.study} ({found.protocol}, {state}): {found.items} items", markup=False)
    for name, table in found.tables.items():
        if not len(table):
            continue
        shown = Table(title=name, title_justify="left", box=None, pad_edge=False)
        for column in map(str, table.columns):  # a narrow window folds what it cannot hold, and cuts nothing off
            shown.add_column(column.replace("_", " "), overflow="fold")
        for row in table.itertuples(index=False):
            shown.add_row(*(_cell(value) for value in row))
        console.print(shown)
    if found.space:
        console.print(f"variance of descriptions by {found.space}", markup=False)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value).replace("[", r"\[")
