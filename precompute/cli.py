"""The command line: `python -m precompute run | demo | verify | export | sample | gallery | label | quality |
robustness | stress | report | study | ratings | benchmark | theory | import-dictionary | import-saediff |
synthesize | convert-adm`.

Bad input ends with one sentence on stderr and exit code 1; with --json, stdout holds one JSON document and no more.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import BlindspotError
from engine.files import DATA
from precompute.benchmark import CONTEXT, benchmark
from precompute.console import ATLASES, AsJson, VariadicCommand, print_json
from precompute.doctor import doctor, dry_run
from precompute.drawing import gallery, sample
from precompute.import_commands import convert_adm, import_dictionary, import_saediff
from precompute.invariants import invariants
from precompute.labelling.command import label
from precompute.quality import quality
from precompute.ratings import ratings
from precompute.report import report
from precompute.robustness import robustness
from precompute.serve import DEMO_ATLAS, serve
from precompute.sharing.commands import fetch, publish
from precompute.stress import stress
from precompute.studies.commands import study

DEMO_RECIPE = DATA / "recipes" / "demo.yaml"
PAPER_TARGETS = [5.0, 6.0, 7.0]
"""Mean scores in EnergyDPS (arXiv:2605.17504), Table 2."""
STOPPED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as shells have them."""

app = typer.Typer(
    help="Build, check and sample atlases of what text-to-image models under- and over-produce.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command(name="app")(serve)

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
    only_plan: Annotated[
        bool, typer.Option("--dry-run", help="Print images, steps, disk, memory and hours, and run nothing.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="local|ray",
            help="What draws, encodes and codes the images: this process, or the workers of the Ray cluster at "
            "RAY_ADDRESS (else of this machine); the atlas is the same.",
        ),
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe, resuming what is done; a second run does nothing.

    Paths in the recipe are relative to its file, paths in --set to the working directory. What the stages find is
    kept in OUT.work, which can be deleted once the atlas is there.
    """
    from precompute.recipe import load_recipe

    read = load_recipe(recipe, settings or ())
    if out is None and (read.name in ("", ".", "..") or set(read.name) & set("/\\") or len(read.name) > 100):
        raise BlindspotError(f"The recipe's name {read.name[:100]!r} is no folder's: change it, or give --out.")
    if only_plan:
        dry_run(read, out or ATLASES / read.name, as_json)
        return
    _build(read, out or ATLASES / read.name, as_json, engine)


@app.command()
def demo(
    train: Annotated[bool, typer.Option("--train", help="First train its models anew (hours on a CPU).")] = False,
    dinov2: Annotated[
        Path | None, typer.Option("--dinov2", help="With --train: a DINOv2 ViT-S/14 to take the encoder from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild data/demo/atlas from the demo's models."""
    from precompute.recipe import load_recipe

    if dinov2 and not train:
        raise BlindspotError(
            "--dinov2 names what the encoder is cut from in a training: give --train with it, or neither."
        )
    if train:
        from precompute.demo_world.training import train_all

        train_all(dinov2=dinov2)
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
        print_json({"atlas": str(atlas), "ok": not problems, "problems": [str(problem) for problem in problems]})
    else:
        for problem in problems:
            typer.echo(f"- {problem}", err=True)
    if problems:
        count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
        sentence = f"{atlas} has {count}; rebuild it with `python -m precompute run`."
        if as_json:  # stdout has its document
            typer.echo(sentence, err=True)
            raise SystemExit(1)
        raise BlindspotError(sentence)
    if not as_json:
        typer.echo(f"{atlas} is in order.")


@app.command()
def export(
    atlas: Annotated[Path, typer.Argument(help="Folder of an atlas.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.", show_default=False)],
    tables: Annotated[bool, typer.Option("--tables", help="Only the tables, unless --figures is given too.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Only the figures, unless --tables is given too.")] = False,
    table_format: Annotated[str, typer.Option("--format", help="Of the tables: csv or parquet.")] = "csv",
    figure_formats: Annotated[
        list[str] | None,
        typer.Option(
            "--figure-format",
            help="Of the figures: html, json, png or svg, several if given again.",
            show_default="html and json",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write every table and figure of an atlas as files that say where they come from.

    PNG and SVG need kaleido and Chromium. An earlier export at --out is replaced.
    """
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from precompute.console import Reporter
    from precompute.export import export as write_export

    opened, both = Atlas.open(atlas), tables == figures
    with Reporter() as reporter, full_disk_explained(out):
        made = write_export(
            opened,
            out,
            reporter.task,
            table_format=table_format if tables or both else None,
            figure_formats=(figure_formats or ["html", "json"]) if figures or both else [],
        )
    if as_json:
        print_json(made._asdict() | {"out": str(made.out)})
        return
    typer.echo(f"{made.out}: {len(made.tables)} files of tables, {len(made.figures)} files of figures.")
    for name, why in made.skipped.items():
        typer.echo(f"- no {name}: {why}")


app.command()(doctor)
app.command()(sample)
app.command()(gallery)
app.command()(invariants)
app.command()(label)
app.command()(quality)
app.command()(robustness)
app.command(cls=VariadicCommand)(stress)
app.command()(report)
app.command()(publish)
app.command()(fetch)
app.command("import-dictionary")(import_dictionary)
app.command("import-saediff")(import_saediff)
app.command("convert-adm")(convert_adm)
app.add_typer(study, name="study")
app.add_typer(ratings, name="ratings")
app.command(context_settings=CONTEXT)(benchmark)


@app.command(cls=VariadicCommand)
def theory(
    targets: Annotated[
        list[float], typer.Option("--targets", metavar="MEAN...", help="Mean scores, one or more in a row.")
    ] = PAPER_TARGETS,
    level_set: Annotated[
        list[float] | None,
        typer.Option(
            "--level-set", metavar="A B", help="Half-axes of an ellipse on which to compare samplers instead."
        ),
    ] = None,
    members: Annotated[int, typer.Option("--members", help="Points that each method draws on the ellipse.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", help="Of these points.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare a hard threshold with a tilt on the toy mixture of arXiv:2605.17504, exactly, at each mean score.

    Boundary masses are taken within 0.05 above the hard threshold, and TV step between the target and 0.08 beyond it.
    With --level-set: methods for invariant sets on z1^2/A^2 + z2^2/B^2 = 1 under z ~ N(0, I), against the exact law by
    24 arcs.
    """
    if level_set is not None:
        _print_level_set(level_set, members, seed, as_json)
        return
    from engine.klsc.diagnosis import diagnose
    from engine.klsc.mixture import AngularConcept, Mixture, score_law

    law = score_law(Mixture(), AngularConcept())
    found = [diagnose(law.scores, target, law.log_weights) for target in targets]
    if as_json:
        print_json([row.as_document() for row in found])
        return
    for row in found:
        typer.echo(f"mean score {row.target:g}")
        _print_biases(f"hard  s > {row.threshold:<11.4f}", row.hard)
        _print_biases(f"tilt  beta {row.beta:<10.4f}", row.tilt)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option("--out", help="Folder of the atlas.", show_default=False)],
    concepts: Annotated[int, typer.Option("--concepts", help="Size of the dictionary.")] = 32_000,
    images: Annotated[int, typer.Option("--images", help="Images per source, in pairs.")] = 10_000,
    models: Annotated[int, typer.Option("--models", help="Generated sources.")] = 4,
    planted: Annotated[
        int | None,
        typer.Option("--planted", help="Blindspots planted in each model.", show_default="100, or what fits"),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens an image: 5 and a square number.")] = 261,
    sparsity: Annotated[int, typer.Option("--sparsity", help="Codes a token, at most.")] = 5,
    dim: Annotated[int, typer.Option("--dim", help="Width of atoms and image embeddings.")] = 768,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Invent an atlas of any size with planted blindspots, for load tests and demos; resumes like run.

    OUT.planted.json beside it says what is planted in each model and how strongly.
    """
    from precompute.console import Reporter, as_document, print_summary
    from precompute.synthetic.build import planted_file, synthesize
    from precompute.synthetic.invention import Invention
    from precompute.synthetic.world import Size

    if planted is None:
        planted = min(100, concepts // (4 * (models + 1)))
    invented = Invention(Size(concepts, images, models, tokens, sparsity, dim), planted, seed)
    with Reporter() as reporter:
        made = synthesize(invented, out, lambda stage: reporter.task(stage.name, stage.unit))
    truth = planted_file(made.out)
    if as_json:
        print_json(as_document(made) | {"planted": str(truth)})
        return
    print_summary(made)
    typer.echo(f"What is planted is listed in {truth}")


def _print_level_set(axes: list[float], members: int, seed: int, as_json: bool) -> None:
    from engine.invariance.planar import compare_ellipse

    if len(axes) != 2:
        raise BlindspotError(f"--level-set takes the two half-axes of an ellipse, not {len(axes)} numbers.")
    found = compare_ellipse(axes[0], axes[1], members, seed)
    if as_json:
        rows = {name: row._asdict() for name, row in found.items()}
        print_json({name: {key: row[key] for key in row if key != "members"} for name, row in rows.items()})
        return
    for name, row in found.items():
        typer.echo(
            f"{name:<12}TV {row.tv:.4f}  chi-square / df {row.chi_square:.2f}  residual {row.residual:.1e}  "
            f"{row.converged:.1%} converged  {row.evaluations:.1f} evaluations a member"
        )


def _print_biases(name: str, biases: Any) -> None:
    typer.echo("  ".join((f"  {name}", *(f"{key} {value:.4f}" for key, value in biases._asdict().items()))))


def _build(recipe: Any, out: Path, as_json: bool, engine: str = "local") -> None:
    from precompute.build import build
    from precompute.console import Reporter, as_document, print_summary

    with Reporter() as reporter:
        made = build(recipe, out, lambda stage: reporter.task(stage.name, stage.unit), engine)
    if as_json:
        print_json(as_document(made))
    else:
        print_summary(made)


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 1."""
    signals: list[int] = []

    def terminate(number: int, frame: Any) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
    try:
        code = app(standalone_mode=False)
        if code == STOPPED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        if signals:  # a command that ended itself
            code = TERMINATED
    except BlindspotError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        _complain("Stopped; run the same command to go on.")
        code = TERMINATED if signals else STOPPED
    except OSError as error:
        if error.filename is None:
            raise
        code = _complain(f"{error.filename} cannot be used: {error.strerror}.")
    except Exception as error:
        # typer's own complaints about arguments: they know how to say themselves.
        if not hasattr(error, "format_message"):
            if type(error).__name__ != "Abort":
                raise
            _complain("Stopped; run the same command to go on.")
            sys.exit(TERMINATED if signals else STOPPED)
        message = error.format_message().rstrip(".")
        code = _complain(
            f"{message}; see --help." if message else "Say what to do, for example run RECIPE.", usage=True
        )
    sys.exit(code if isinstance(code, int) else 0)


def _complain(sentence: str, usage: bool = False) -> int:
    sentence = " ".join(sentence.split()).encode("utf-8", "backslashreplace").decode()
    if "--json" in sys.argv and not usage:
        print_json({"error": sentence})
    typer.echo(sentence, err=True)
    return 1
