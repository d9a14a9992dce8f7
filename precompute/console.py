"""What commands share on the console: progress bars on stderr, a run's summary or JSON document, lists of values."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from engine.errors import printable
from engine.files import plain

if TYPE_CHECKING:
    from precompute.runner import Build

ATLASES = Path("atlases")
"""Where atlases go unless a command is told otherwise."""
SHOWN = 3
"""Unread captions of a source that the summary names."""
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_json(document: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Print a document on stdout."""
    typer.echo(printable(json.dumps(plain(document), indent=1, ensure_ascii=False)))


class VariadicCommand(TyperCommand):
    """A command without positional arguments whose repeatable options take several values in a row.

    click only knows `--targets 5 --targets 6`; this also takes `--targets 5 6`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat an option's name before each of its further values, and parse as click does."""
        names = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        return super().parse_args(ctx, list(_repeated(args, names)))


def _repeated(words: list[str], names: set[str]) -> Iterator[str]:
    """The words, with the last option's name put before every value after its first."""
    name, values = "", 0
    for word in words:
        # A minus before a digit is a negative number.
        if word.startswith("-") and not word[1:2].isdigit() and word[1:2] != ".":
            name, values = word.split("=")[0], int("=" in word)
        else:
            values += 1
            if name in names and values > 1:
                yield name
        yield word


class Pace(ProgressColumn):
    """Work per second and the time left, counted from where this run began."""

    def render(self, task: Task) -> Text:
        """`12.3 images/s, 1:05 left`."""
        elapsed, done = task.elapsed or 0.0, task.completed - task.fields["begun_at"]
        if task.finished or done <= 0 or elapsed <= 0 or task.total is None:
            return Text("")
        rate = done / elapsed
        seconds = round((task.total - task.completed) / rate)
        minutes = f"{seconds // 3600}:{seconds // 60 % 60:02d}" if seconds >= 3600 else f"{seconds // 60}"
        speed = f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"
        pace = f"{speed} {task.fields['unit']}/s, {minutes}:{seconds % 60:02d} left"
        return Text(", ".join(part for part in (pace, task.fields["note"]) if part), style="cyan")


class ProgressBar:
    """One stage's bar; called with the work done and all work."""

    def __init__(self, bars: Progress, name: str, unit: str) -> None:
        self._bars, self._id = bars, bars.add_task(name, total=None, unit=unit, begun_at=0, note="")
        self._first = True

    def __call__(self, done: int, total: int) -> None:
        if self._first and done < total:
            self._bars.update(self._id, begun_at=done)
        self._first = False
        self._bars.update(self._id, completed=min(done, total), total=total)

    def note(self, text: str) -> None:
        """Show a few words on how the work goes beside the pace."""
        self._bars.update(self._id, note=text)


class Reporter:
    """Progress bars on stderr, one per stage that runs."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Pace())
        self._bars = Progress(*columns, console=self.console)

    def __enter__(self) -> Reporter:
        quieten_libraries()
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._complete()
        self._bars.stop()

    def task(self, name: str, unit: str) -> ProgressBar:
        """A bar for one stage; those before it are filled."""
        self._complete()
        return ProgressBar(self._bars, name, unit)

    def _complete(self) -> None:
        """Fill the bars so far; a stage need not report its end."""
        for bar in self._bars.tasks:
            self._bars.update(bar.id, total=bar.total or 1, completed=bar.total or 1)
            self._bars.stop_task(bar.id)


def quieten_libraries() -> None:
    """Switch off the progress bars and hints of transformers and diffusers; their errors still come."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


def as_document(made: Build) -> dict[str, Any]:
    """A run as JSON."""
    shown = ("name", "kind", "images", "paired", "pairing", "skipped")
    return {
        "atlas": str(made.out),
        "work": str(made.work),
        "seconds": round(made.seconds, 2),
        "sources": [{key: source[key] for key in shown} for source in made.header["sources"]],
        "dictionary": made.header["dictionary"],
        "skipped": str(made.skipped) if made.skipped else None,
        "counts": dict(made.counts),
        "composition_rows": made.header.get("composition_rows"),
        "delta": delta_numbers(made),
        "stages": [asdict(outcome) for outcome in made.outcomes],
    }


def delta_numbers(made: Build) -> dict[str, dict[str, Any]]:
    """Per model the median and skewness of delta over live concepts, and the skewness over all of the dictionary."""
    from engine.atlas.reader import Atlas
    from engine.figures.tables import summarise

    atlas, numbers = Atlas.open(made.out), {}
    used = atlas.info.delta
    for model in atlas.models:
        table = atlas.concepts.join(atlas.delta(model, used.estimator, used.temperature))
        found = summarise(table, used.suppressed, used.exaggerated)
        numbers[model] = {
            "median": found.median,
            "skewness": found.skewness,
            "live_concepts": found.concepts,
            "skewness_all": found.all_skewness,
            "concepts": found.all_concepts,
        }
    return numbers


def print_summary(made: Build) -> None:
    """Print a run in a few lines on stdout."""
    console = Console(soft_wrap=True, highlight=False)
    ran = [outcome for outcome in made.outcomes if outcome.action != "kept"]
    table = Table("source", "images", "pairs by", "skipped", box=None, pad_edge=False)
    for source in made.header["sources"]:
        table.add_row(source["name"], str(source["images"]), source["pairing"], str(source["skipped"] or ""))
    console.print(table)
    for name, count in made.counts.items():
        of = count["images"]
        pairs = f", pairs: {count['pairs']} of {of}" if count["pairs"] is not None else ""
        broken = sum(times for kind, times in count["skipped"].items() if "finite" in kind)
        console.print(f"{name}: captions: {count['captions']} of {of}{pairs}, not finite: {broken}", markup=False)
        if "sampled_from" in count:
            console.print(
                f"{name}: a random sample of {count['sampled_from']} images (seed {count['seed']})", markup=False
            )
        if count["skipped"]:
            reasons = "; ".join(f"{times} {kind}" for kind, times in count["skipped"].items())
            console.print(f"{name}: skipped: {reasons}", markup=False)
        for reason in count["captions not read"][:SHOWN]:
            console.print(f"{name}: {reason}", markup=False)
        if (more := len(count["captions not read"]) - SHOWN) > 0:
            console.print(f"{name}: {more} more files with captions could not be read as they stand", markup=False)
    for outcome in made.outcomes:
        if cut := outcome.summary.get("truncated"):
            name, drawn = outcome.name.partition("/")[2], outcome.summary["images"] + outcome.summary["skipped"]
            console.print(
                f"{name}: {cut} of {drawn} captions are longer than the model reads, and were cut", markup=False
            )
        if batch := outcome.summary.get("batch"):
            name = outcome.name.partition("/")[2]
            console.print(f"{name}: drawn {batch} at once, for memory ran out with more", markup=False)
    dictionary = made.header["dictionary"]
    fit = f", R2 {dictionary['r2']:.3f}" if "r2" in dictionary else ""
    console.print(f"{dictionary['concepts']} concepts, {dictionary['sparsity']} active per token{fit}")
    for model, numbers in delta_numbers(made).items():
        console.print(
            f"{model}: median delta {numbers['median']:.2f}, skewness {numbers['skewness']:+.2f} over "
            f"{numbers['live_concepts']} live concepts, {numbers['skewness_all']:+.2f} over all {numbers['concepts']}",
            markup=False,
        )
    if made.skipped:
        console.print(f"Images that could not be used are listed in {printable(str(made.skipped))}")
    if ran:
        console.print(f"{made.out} is ready ({len(ran)} of {len(made.outcomes)} stages ran, {made.seconds:.0f} s).")
    else:
        console.print(f"{made.out} is up to date; nothing to do.")
