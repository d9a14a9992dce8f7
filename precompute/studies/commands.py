"""The commands that study drawings of a concept: `study sweep | levels | neurons | methods | injection`.

Each writes `table.csv`, `figure.html`, `grid.png` and `study.json` into a folder; see `study_files`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from precompute.console import AsJson, VariadicCommand, print_json
from precompute.drawing_commands import AtlasFolder, Method, Seed, States, Steps

if TYPE_CHECKING:
    from engine.atlas import Atlas
    from precompute.studies.files import Study
    from precompute.studies.subject import Listener

STUDIES = Path("studies")
SAMPLES = 8
PRIOR_SAMPLES = 64
NEURONS = 2
STRENGTHS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8]
SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]

study = typer.Typer(help="Study how a concept is drawn: tables, a figure and a grid of images.", no_args_is_help=True)

Concept = Annotated[int, typer.Option("--concept", help="Number of the concept.", show_default=False)]
Count = Annotated[int, typer.Option("--count", help="Images of each row, 4 or more; the grid shows four.")]
PriorSamples = Annotated[int, typer.Option("--prior-samples", help="Samples of the prior itself to compare with.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder for the files.", show_default="studies/<study>-<concept>")
]


@study.command(cls=VariadicCommand)
def sweep(
    atlas: AtlasFolder,
    concept: Concept,
    strengths: Annotated[
        list[float], typer.Option("--strengths", metavar="NUMBER...", help="Strengths, one or more in a row.")
    ] = STRENGTHS,
    method: Method = GenerationRequest.method,
    count: Count = SAMPLES,
    steps: Steps = GenerationRequest.steps,
    states: States = GenerationRequest.candidates,
    seed: Seed = 0,
    prior_samples: PriorSamples = PRIOR_SAMPLES,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Draw a concept at several strengths from the same noise: score, diversity, distances to the prior, seconds."""

    def make(opened: Atlas, listener: Listener, task: Any) -> Study:
        from precompute.studies.kinds import sweep_study

        return sweep_study(opened, order, strengths, prior_samples, listener)

    order = GenerationRequest(concept, method, count, seed, steps=steps, candidates=states)
    _run(atlas, out or STUDIES / f"sweep-{concept}", as_json, make)


@study.command(cls=VariadicCommand)
def levels(
    atlas: AtlasFolder,
    concept: Concept,
    shares: Annotated[
        list[float],
        typer.Option("--shares", metavar="SHARE...", help="Of the best real images' mean score; 0 is no push."),
    ] = SHARES,
    method: Method = GenerationRequest.method,
    count: Count = SAMPLES,
    steps: Steps = GenerationRequest.steps,
    states: States = GenerationRequest.candidates,
    seed: Seed = 0,
    prior_samples: PriorSamples = PRIOR_SAMPLES,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Draw a concept at growing activation, in order of score, beside real images of nearly the same score."""

    def make(opened: Atlas, listener: Listener, task: Any) -> Study:
        from precompute.studies.kinds import levels_study

        return levels_study(opened, order, shares, prior_samples, listener)

    order = GenerationRequest(concept, method, count, seed, steps=steps, candidates=states)
    _run(atlas, out or STUDIES / f"levels-{concept}", as_json, make)


@study.command()
def neurons(
    atlas: AtlasFolder,
    concept: Concept,
    neurons: Annotated[
        int, typer.Option("--neurons", help="How many by the concept's atom, and as many by the concept's map.")
    ] = NEURONS,
    method: Method = GenerationRequest.method,
    count: Count = SAMPLES,
    steps: Steps = GenerationRequest.steps,
    states: States = GenerationRequest.candidates,
    seed: Seed = 0,
    prior_samples: PriorSamples = PRIOR_SAMPLES,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Draw a concept and the single neurons nearest to it at the same share of their best real images' score."""

    def make(opened: Atlas, listener: Listener, task: Any) -> Study:
        from precompute.studies.kinds import neurons_study

        return neurons_study(opened, order, neurons, prior_samples, listener, task("real images", "images"))

    order = GenerationRequest(concept, method, count, seed, steps=steps, candidates=states)
    _run(atlas, out or STUDIES / f"neurons-{concept}", as_json, make)


@study.command(cls=VariadicCommand)
def methods(
    atlas: AtlasFolder,
    concept: Concept,
    methods: Annotated[
        list[str] | None,
        typer.Option("--methods", metavar="NAME...", help="Which; a wrong name lists them.", show_default="all"),
    ] = None,
    count: Count = SAMPLES,
    steps: Steps = GenerationRequest.steps,
    states: States = GenerationRequest.candidates,
    seed: Seed = 0,
    prior_samples: PriorSamples = PRIOR_SAMPLES,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Draw a concept by every method at the mean score of the best real images, and compare what comes out."""

    def make(opened: Atlas, listener: Listener, task: Any) -> Study:
        from precompute.studies.methods import methods_study

        return methods_study(opened, order, methods, prior_samples, listener, task("methods", "methods"))

    order = GenerationRequest(concept, count=count, steps=steps, candidates=states, seed=seed)
    _run(atlas, out or STUDIES / f"methods-{concept}", as_json, make)


@study.command(cls=VariadicCommand)
def injection(
    atlas: AtlasFolder,
    concept: Concept,
    reference: Annotated[
        int | None, typer.Option("--reference", help="Number of the image to resemble.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="What to show instead; needs a prior with an image encoder.")
    ] = None,
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
    method: Method = GenerationRequest.method,
    count: Count = SAMPLES,
    steps: Steps = GenerationRequest.steps,
    states: States = GenerationRequest.candidates,
    seed: Seed = 0,
    prior_samples: PriorSamples = PRIOR_SAMPLES,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Make a concept's drawings serve a task too, at the same score: what else changes in them, and how much."""
    if (reference is None) == (text is None):
        raise BlindspotError("Give either --reference IMAGE or --text WORDS.")

    def make(opened: Atlas, listener: Listener, task: Any) -> Study:
        from precompute.studies.kinds import injection_study

        wanted = text if reference is None else reference
        return injection_study(opened, order, wanted, ratios, target, prior_samples, listener)

    order = GenerationRequest(concept, method, count, seed, steps=steps, candidates=states)
    _run(atlas, out or STUDIES / f"injection-{concept}", as_json, make)


def _run(folder: Path, out: Path, as_json: bool, make: Callable[[Atlas, Listener, Any], Study]) -> None:
    """Make a study with progress bars, write it, and say what was found."""
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from precompute.console import Reporter
    from precompute.studies.files import write_study
    from precompute.studies.report import print_study

    opened = Atlas.open(folder)
    with Reporter() as reporter, full_disk_explained(out):
        made = make(opened, lambda row: _hear(reporter.task(row, "steps")), reporter.task)
        document = write_study(made, out)
    if as_json:
        print_json({**document, "out": str(out)})
    else:
        print_study(made, out)


def _hear(tick: Any) -> Callable[[Any], None]:
    """A listener that moves a bar, which begins anew with each trial or batch."""
    runs = 0

    def hear(event: Any) -> None:
        nonlocal runs
        if event.step == 1:
            runs += 1
            tick.note(f"round {runs}" if runs > 1 else "")
        tick(event.step, event.steps)

    return hear
