"""The command line: `python -m precompute run | demo | verify | export | sample | gallery | study |
theory | import-dictionary | import-saediff | synthesize | convert-adm`.

Bad input ends with one sentence on stderr and exit code 1; with --json, stdout holds one JSON document and no more.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import BlindspotError
from precompute.drawing_commands import gallery, sample
from precompute.output import AsJson, print_json
from precompute.study_commands import study
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
        print_json({"atlas": str(atlas), "ok": not problems, "problems": [str(problem) for problem in problems]})
    else:
        for problem in problems:
            typer.echo(f"- {problem}", err=True)
    if problems:
        count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
        raise BlindspotError(f"{atlas} has {count}; rebuild it with `python -m precompute run`.")
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
    from precompute.export import export as write_export
    from precompute.files import full_disk_explained
    from precompute.reporting import Reporter

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


app.command()(sample)
app.command()(gallery)
app.add_typer(study, name="study")


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
        print_json([row.as_document() for row in found])
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
        print_json({"out": str(out), **asdict(report)})
        return
    typer.echo(f"{out}: {report.concepts} concepts of width {report.dim}, from {report.kind}. Assumed:")
    for topic, sentence in report.assumed.items():
        typer.echo(f"- {topic}: {sentence}")


@app.command("import-saediff")
def import_saediff(
    files: Annotated[
        list[Path],
        typer.Argument(help="The authors' `__enriched.json` files, one per model.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the atlas.", show_default=False)],
    images_url: Annotated[
        str | None,
        typer.Option(
            "--images-url",
            metavar="URL",
            help="Address of the folder with sample_0, sample_1 ...; {model} stands for the model in a file's name.",
        ),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Name of a model, once per file and in their order.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn the statistics that the authors of Conceptual Blindspots published into an atlas, and list what was assumed.

    Such an atlas has a map, rankings, co-occurrences and comparisons, but no images, intervals, p or q. Nothing is
    fetched: images are links, and the app asks before it loads one.
    """
    from dataclasses import asdict

    from precompute.files import full_disk_explained
    from precompute.saediff.importing import import_saediff

    with full_disk_explained(out):
        made = import_saediff(files, out, names=names or (), images_url=images_url)
    if as_json:
        print_json(asdict(made))
        return
    typer.echo(f"{made.out}: {made.live} of {made.concepts} concepts on the map, models {', '.join(made.models)}.")
    typer.echo(f"{made.connections} co-occurrences, {made.links} image links. Assumed:")
    for topic, sentence in made.assumed.items():
        typer.echo(f"- {topic}: {sentence}")
    typer.echo(f"Not published: {'; '.join(made.missing)}.")


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
    from precompute.reporting import Reporter, as_document, print_summary
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


@app.command("convert-adm")
def convert_adm(
    src: Annotated[Path, typer.Argument(help="A checkpoint such as 256x256_diffusion_uncond.pt.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="New folder for the network.", show_default=False)],
    image_size: Annotated[int, typer.Option("--image-size", help="Side of its images in pixels.")] = 256,
    noise: Annotated[str, typer.Option("--noise", help="Its noise schedule: linear or cosine.")] = "linear",
    heads: Annotated[
        int | None, typer.Option("--heads", help="Heads of every attention.", show_default="64 channels a head")
    ] = None,
    qkv: Annotated[str, typer.Option("--qkv", help="Order of the attention's channels: legacy or new.")] = "legacy",
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint of OpenAI's guided-diffusion into a prior of kind adm; no code in it is ever run.

    The defaults are those of the 256 x 256 models. The 128 x 128 model needs --image-size 128 --heads 4, the 64 x 64
    one --image-size 64 --noise cosine --qkv new.
    """
    from dataclasses import asdict

    from engine.priors.adm_conversion import Unwritten
    from engine.priors.adm_conversion import convert_adm as convert
    from precompute.files import full_disk_explained

    with full_disk_explained(out):
        made = convert(src, out, Unwritten(image_size, heads, qkv, noise))
    if as_json:
        print_json({"out": str(out), **asdict(made)})
        return
    config = made.config
    classes = f"{config.classes} classes" if config.classes else "unconditional"
    variance = "learned" if config.learned_variance else "fixed"
    typer.echo(f"{out}: {made.parameters:,} parameters, {classes}, {variance} variance.")
    typer.echo(
        f"Assumed: {config.image_size} x {config.image_size} pixels, {noise} noise, "
        f"{f'{heads} heads' if heads else '64 channels a head'}, {qkv} attention order."
    )


def _print_biases(name: str, biases: Any) -> None:
    typer.echo("  ".join((f"  {name}", *(f"{key} {value:.4f}" for key, value in biases._asdict().items()))))


def _build(recipe: Any, out: Path, as_json: bool) -> None:
    from precompute.build import build
    from precompute.reporting import Reporter, as_document, print_summary

    with Reporter() as reporter:
        made = build(recipe, out, lambda stage: reporter.task(stage.name, stage.unit))
    if as_json:
        print_json(as_document(made))
    else:
        print_summary(made)


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
