"""The command line: `python -m precompute run | demo | verify | sample | theory | import-dictionary`.

Bad input ends with one sentence on stderr and exit code 1; with --json, stdout holds one JSON document and no more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import BlindspotError
from precompute.variadic import VariadicCommand

PROJECT = Path(__file__).resolve().parents[1]
DEMO_RECIPE = PROJECT / "data" / "recipes" / "demo.yaml"
DEMO_ATLAS = PROJECT / "data" / "demo" / "atlas"
ATLASES = Path("atlases")
PAPER_TARGETS = [5.0, 6.0, 7.0]
"""Mean scores in paper 000's Table 2."""
STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    help="Build, check and sample atlases of what text-to-image models under- and over-produce.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, e.g. --set models.mine=FOLDER."),
]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, e.g. data/recipes/folders.yaml.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the atlas.", show_default="atlases/<recipe's name>")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe, resuming what is done; a second run does nothing.

    Paths in the recipe are relative to its file, paths in --set to the working directory. What the stages find is
    kept in OUT.work, which can be deleted once the atlas is there.
    """
    from precompute.recipe_files import load_recipe

    read = load_recipe(recipe, settings or ())
    _build(read, out or ATLASES / read.name, as_json)


@app.command()
def demo(
    train: Annotated[bool, typer.Option("--train", help="First train its models anew (hours on a CPU).")] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild data/demo/atlas from the demo's models."""
    from precompute.recipe_files import load_recipe

    if train:
        from precompute.tabletop.training import train_all

        train_all()
    _build(load_recipe(DEMO_RECIPE), DEMO_ATLAS, as_json)


@app.command()
def verify(
    atlas: Annotated[Path, typer.Argument(help="Folder of an atlas.", show_default=False)], as_json: AsJson = False
) -> None:
    """Check every file of an atlas against its schema and checksum; exit code 1 if anything is wrong."""
    from engine.atlas.reader import Atlas
    from engine.atlas.verify import verify as find_problems

    Atlas.open(atlas)
    problems = find_problems(atlas)
    if as_json:
        _print_json({"atlas": str(atlas), "ok": not problems, "problems": [str(problem) for problem in problems]})
    else:
        for problem in problems:
            typer.echo(f"- {problem}", err=True)
    if problems:
        count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
        raise BlindspotError(f"{atlas} has {count}; rebuild it with `python -m precompute run`.")
    if not as_json:
        typer.echo(f"{atlas} is in order.")


@app.command()
def sample(
    atlas: Annotated[Path, typer.Argument(help="Folder of an atlas.", show_default=False)],
    concept: Annotated[int, typer.Option("--concept", help="Number of the concept.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the images.", show_default=False)],
    method: Annotated[str, typer.Option(help="energydps, energydps-light, prior or retrieval.")] = "energydps",
    count: Annotated[int, typer.Option("--count", help="Images to draw.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Image i depends on (seed, i) alone.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw images that excite one concept of an atlas, as PNG files with their scores."""
    from engine.atlas.reader import Atlas
    from engine.samplers.drawing import draw_concept
    from engine.samplers.files import load_drawing, save_drawing
    from precompute.files import full_disk_explained
    from precompute.reporting import Reporter

    opened = Atlas.open(atlas)
    with Reporter() as reporter, full_disk_explained(out):
        tick = reporter.task(f"concept {concept}", "steps")
        drawing = draw_concept(
            opened, concept, method=method, count=count, seed=seed, on_step=lambda event: tick(event.step, event.steps)
        )
        files = save_drawing(drawing, out)
    if as_json:
        _print_json({"atlas": str(atlas), "out": str(out), **load_drawing(out)})
        return
    for file, score in zip(files, drawing.samples.scores.tolist(), strict=True):
        typer.echo(f"{file}  score {score:.3f}")
    if drawing.reference_score is not None:
        typer.echo(f"The best real images score {drawing.reference_score:.3f} on average.")


@app.command(cls=VariadicCommand)
def theory(
    targets: Annotated[
        list[float], typer.Option("--targets", metavar="MEAN...", help="Mean scores, one or more in a row.")
    ] = PAPER_TARGETS,
    as_json: AsJson = False,
) -> None:
    """Compare a hard threshold with a tilt on paper 000's toy mixture, exactly, at each mean score.

    Boundary masses are taken within 0.05 above the hard threshold, and TV step between the target and 0.08 beyond it.
    """
    from engine.klsc.diagnosis import diagnose
    from engine.klsc.mixture import AngularConcept, Mixture
    from engine.klsc.quadrature import score_law

    law = score_law(Mixture(), AngularConcept())
    found = [diagnose(law.scores, target, law.log_weights) for target in targets]
    if as_json:
        _print_json([row.as_document() for row in found])
        return
    for row in found:
        typer.echo(f"mean score {row.target:g}")
        _print_biases(f"hard  s > {row.threshold:<11.4f}", row.hard)
        _print_biases(f"tilt  beta {row.beta:<10.4f}", row.tilt)


@app.command("import-dictionary")
def import_dictionary(
    src: Annotated[
        str, typer.Argument(help="File, folder, or hub id (owner/name/folder@revision).", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the dictionary.", show_default=False)],
    kind: Annotated[
        str, typer.Option("--kind", help="auto, overcomplete, saev, sparsify, dictionary_learning or saelens.")
    ] = "auto",
    sparsity: Annotated[
        int | None,
        typer.Option("--sparsity", help="k of a TopK whose file does not say it; else the most codes kept per token."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Threshold of an overcomplete BatchTopK.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a dictionary that others published into ours, and list what was assumed; no code in it is ever run."""
    from dataclasses import asdict

    from engine.dictionary.published import Options, import_dictionary
    from precompute.files import full_disk_explained

    with full_disk_explained(out):
        report = import_dictionary(src, out, kind, Options(sparsity, threshold))
    if as_json:
        _print_json({"out": str(out), **asdict(report)})
        return
    typer.echo(f"{out}: {report.concepts} concepts of width {report.dim}, from {report.kind}. Assumed:")
    for topic, sentence in report.assumed.items():
        typer.echo(f"- {topic}: {sentence}")


def _print_biases(name: str, biases: Any) -> None:
    typer.echo("  ".join((f"  {name}", *(f"{key} {value:.4f}" for key, value in biases._asdict().items()))))


def _build(recipe: Any, out: Path, as_json: bool) -> None:
    from precompute.build import build
    from precompute.reporting import Reporter, as_document, print_summary

    with Reporter() as reporter:
        made = build(recipe, out, lambda stage: reporter.task(stage.name, stage.unit))
    if as_json:
        _print_json(as_document(made))
    else:
        print_summary(made)


def _print_json(document: dict[str, Any] | list[dict[str, Any]]) -> None:
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False))


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 1."""
    try:
        code = app(standalone_mode=False)
    except BlindspotError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        _complain("Stopped; run the same command to go on.")
        code = STOPPED
    except Exception as error:
        # typer's own complaints about arguments: they know how to say themselves.
        if not hasattr(error, "format_message"):
            if type(error).__name__ != "Abort":
                raise
            _complain("Stopped; run the same command to go on.")
            sys.exit(STOPPED)
        message = error.format_message().rstrip(".")
        code = _complain(f"{message}; see --help." if message else "Say what to do, for example run RECIPE.")
    sys.exit(code if isinstance(code, int) else 0)


def _complain(sentence: str) -> int:
    typer.echo(" ".join(sentence.split()), err=True)
    return 1
