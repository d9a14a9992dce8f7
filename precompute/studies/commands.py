"""The commands `study sweep | levels | neurons | methods | injection | invariance`.

Each writes `table.csv`, `figure.html`, `grid.png` and `study.json` into a folder; see `precompute.studies.base`.
"""

# Annotations are not postponed here: `study_command` hands them to typer.
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from engine.errors import BlindspotError
from engine.hub import ALLOW
from engine.samplers.generation import GenerationRequest
from engine.samplers.registry import TaskSettings
from precompute.console import AsJson, Reporter, VariadicCommand, print_json
from precompute.drawing import (
    AllowDownload,
    AtlasFolder,
    DeviceOption,
    DtypeOption,
    LikeBy,
    Method,
    PriorOption,
    Seed,
    States,
    Steps,
    TextEncoder,
    step_reporter,
)

if TYPE_CHECKING:
    from precompute.studies.base import Study, StudyInputs

STUDIES = Path("studies")
STRENGTHS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8]
SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
COLUMNS = {
    "sweep": ("strength", "score", "score_error", "codes_score", "diversity", "slope", "kid", "frechet", "seconds"),
    "levels": ("share", "target", "score", "score_error", "real_score", "strength", "diversity", "kid"),
    "neurons": ("name", "score_correlation", "selectivity", "share", "concept_share", "diversity", "kid"),
    "methods": ("method", "score", "of_target", "strength", "frechet", "kid", "diversity", "slope", "seconds"),
    "injection": ("ratio", "strength", "score", "score_error", "task", "drift", "bound"),
    "invariance": (
        "target",
        "method",
        "within",
        "l2",
        "l2_sd",
        "robust",
        "frechet",
        "diversity",
        "evaluations",
        "seconds",
    ),
}
"""Columns of a study's table that are printed."""
SHORT = {"score_error": "±", "codes_score": "codes", "real_score": "real", "score_correlation": "correlation",
         "concept_share": "concept"}  # fmt: skip
"""Their printed names, where the name is long."""
WIDTH = 110
"""Characters a table may take where the terminal does not say that it has more."""

study = typer.Typer(help="Study how a concept is drawn: tables, a figure and a grid of images.", no_args_is_help=True)

Concept = Annotated[int, typer.Option("--concept", help="Number of the concept.", show_default=False)]
Count = Annotated[int, typer.Option("--count", help="Images of each row, 4 or more; the grid shows four.")]
PriorSamples = Annotated[int, typer.Option("--prior-samples", help="Samples of the prior itself to compare with.")]
KeepImages = Annotated[bool, typer.Option("--images", help="Keep the images too, for `ratings prepare --from`.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder for the files.", show_default="studies/<study>-<concept>")
]


def study_command(*left_out: str) -> Callable[[Callable[..., "Study"]], Callable[..., "Study"]]:
    """Register a function of `StudyInputs` and a study's own options as a command that has `run_study`'s options too.

    Parameters
    ----------
    left_out
        Options of `run_study` that the command does not have.
    """

    def register(make: Callable[..., "Study"]) -> Callable[..., "Study"]:
        own = list(inspect.signature(make).parameters.values())[1:]
        atlas, concept, *shared = list(inspect.signature(run_study).parameters.values())[2:]
        parameters = [atlas, concept, *own, *(each for each in shared if each.name not in left_out)]

        def command(**options: Any) -> None:
            own_options = {each.name: options.pop(each.name) for each in own}
            run_study(lambda inputs: make(inputs, **own_options), make.__name__, **options)

        command.__doc__ = make.__doc__
        keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        command.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        study.command(make.__name__, cls=VariadicCommand)(command)
        return make

    return register


def run_study(
    make: Callable[["StudyInputs"], "Study"],
    name: str,
    atlas: AtlasFolder,
    concept: Concept,
    method: Method = GenerationRequest.method,
    count: Count = 8,
    steps: Steps = GenerationRequest.steps,
    states: States = GenerationRequest.candidates,
    seed: Seed = 0,
    prior_samples: PriorSamples = 64,
    prior: PriorOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    images: KeepImages = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Make a study with progress bars, write it, and print what was found."""
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from precompute.studies.base import StudyInputs, write_study

    request = GenerationRequest(concept, method, count, seed, steps=steps, candidates=states, prior=prior)
    out = out or STUDIES / f"{name}-{concept}"
    opened = Atlas.open(atlas)
    with Reporter() as reporter, full_disk_explained(out):
        inputs = StudyInputs(
            opened, request, prior_samples, lambda row: step_reporter(reporter.task(row, "steps"), "round"),
            reporter.task, (device, dtype),
        )  # fmt: skip
        made = make(inputs)
        document = write_study(made, out, images)
    if as_json:
        print_json({**document, "out": str(out)})
    else:
        print_study(made, out)


@study_command("images")
def sweep(
    inputs: "StudyInputs",
    strengths: Annotated[
        list[float], typer.Option("--strengths", metavar="NUMBER...", help="Strengths, one or more in a row.")
    ] = STRENGTHS,
) -> "Study":
    """Draw a concept at several strengths from the same noise: score, diversity, distances to the prior, seconds."""
    from precompute.studies.sweeps import sweep_study

    return sweep_study(inputs, strengths)


@study_command("images")
def levels(
    inputs: "StudyInputs",
    shares: Annotated[
        list[float],
        typer.Option("--shares", metavar="SHARE...", help="Of the best real images' mean score; 0 is no push."),
    ] = SHARES,
) -> "Study":
    """Draw a concept at growing activation, in order of score, beside real images of nearly the same score."""
    from precompute.studies.sweeps import levels_study

    return levels_study(inputs, shares)


@study_command()
def neurons(
    inputs: "StudyInputs",
    neurons: Annotated[
        int, typer.Option("--neurons", help="How many by the concept's atom, and as many by the concept's map.")
    ] = 2,
) -> "Study":
    """Draw a concept and the single neurons nearest to it at the same share of their best real images' score."""
    from precompute.studies.neurons import neurons_study

    return neurons_study(inputs, neurons)


@study_command("method")
def methods(
    inputs: "StudyInputs",
    methods: Annotated[
        list[str] | None,
        typer.Option("--methods", metavar="NAME...", help="Which; a wrong name lists them.", show_default="all"),
    ] = None,
) -> "Study":
    """Draw a concept by every method at the mean score of the best real images, and compare what comes out."""
    from precompute.studies.methods import methods_study

    return methods_study(inputs, methods)


@study_command("images")
def injection(
    inputs: "StudyInputs",
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="The image to resemble: its number, or a file.", show_default=False),
    ] = None,
    by: LikeBy = "encoder",
    text: Annotated[str | None, typer.Option("--text", help="What to show instead.")] = None,
    text_encoder: TextEncoder = None,
    ratios: Annotated[
        list[float] | None,
        typer.Option(
            "--ratios",
            metavar="NUMBER...",
            help="What a unit of the task is worth in units of score, η/β.",
            show_default="1/4, 1/2, 1 and 2 times the target",
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option("--target", help="Mean score to hold.", show_default="that of the four best real images"),
    ] = None,
) -> "Study":
    """Make a concept's drawings serve a task too, at the same score: what else changes in them, and how much."""
    from precompute.studies.injection import injection_study

    if (reference is None) == (text is None):
        raise BlindspotError("Give either --reference IMAGE or --text WORDS.")
    serving = TaskSettings(text=text, text_encoder=text_encoder, like=reference, like_by=by)
    return injection_study(inputs, serving, ratios, target)


@study.command("invariance", cls=VariadicCommand)
def invariance(
    atlas: AtlasFolder,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="YAML file with these settings, such as data/recipes/invariance.yaml."),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--targets", metavar="TARGET...", help="What is held constant, as in `invariants`: concept:54 ..."
        ),
    ] = None,
    images: Annotated[
        list[int] | None,
        typer.Option("--images", metavar="NUMBER...", help="Query of each target.", show_default="strongest response"),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--methods", metavar="NAME...", help="walk, projection, descent.", show_default="walk descent"),
    ] = None,
    members: Annotated[int | None, typer.Option("--members", help="Of each set.", show_default="32")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Of the deterministic sampler.", show_default="10")
    ] = None,
    low_pass: Annotated[str | None, typer.Option("--low-pass", help="Filters, as in `invariants`.")] = None,
    descent_steps: Annotated[
        int | None, typer.Option("--descent-steps", help="Most gradient steps.", show_default="512")
    ] = None,
    optimisers: Annotated[
        list[str] | None,
        typer.Option(
            "--optimisers",
            metavar="NAME...",
            help="Grid of descents: sgd adam adagrad shampoo.",
            show_default="no grid",
        ),
    ] = None,
    rates: Annotated[list[float] | None, typer.Option("--rates", metavar="NUMBER...", help="Of the grid.")] = None,
    filters: Annotated[list[str] | None, typer.Option("--filters", metavar="WORDS...", help="Of the grid.")] = None,
    grid_members: Annotated[int | None, typer.Option("--grid-members", help="Of each set of the grid.")] = None,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    allow_download: AllowDownload = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = STUDIES / "invariance",
    as_json: AsJson = False,
) -> None:
    """Draw invariant sets by several methods, and a grid of descents: the tables of the thesis "EquiDiff"."""
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from precompute.studies.base import write_study
    from precompute.studies.invariance import invariance_study, load_settings

    given = {
        "targets": targets, "images": images, "methods": methods, "members": members, "low_pass": low_pass,
        "steps": steps, "descent_steps": descent_steps, "optimisers": optimisers, "rates": rates, "filters": filters,
        "grid_members": grid_members, "seed": seed or None,
    }  # fmt: skip
    if allow_download:
        os.environ[ALLOW] = "1"
    settings = load_settings(recipe, {name: value for name, value in given.items() if value is not None})
    opened = Atlas.open(atlas)
    with Reporter() as reporter, full_disk_explained(out):
        made = invariance_study(opened, settings, reporter.task, device, allow_download)
        document = write_study(made, out)
    if as_json:
        print_json({**document, "out": str(out)})
    else:
        print_study(made, out)


def print_study(study: "Study", out: Path) -> None:
    """Print a study's table, a line for each note, and the folder."""
    console = Console(soft_wrap=True, highlight=False, width=max(Console().width, WIDTH))
    table, columns = study.tables["table"], COLUMNS[study.what]
    printed = Table(*(SHORT.get(column, column) for column in columns), box=None, pad_edge=False)
    for row in table[list(columns)].itertuples(index=False):
        printed.add_row(*map(_cell, row))
    console.print(printed)
    if "note" in table:
        for row in table[table["note"] != ""].itertuples(index=False):
            name = row[0] if isinstance(row[0], str) else f"{columns[0]} {row[0]:g}"
            console.print(f"- {name}: {row.note}", markup=False)
    console.print(f"{out}: table.csv, figure.html, grid.png, study.json", markup=False)


def _cell(value: Any) -> str:
    """A number in four digits; nothing for one that does not exist."""
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.4g}"
