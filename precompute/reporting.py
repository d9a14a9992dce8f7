"""What a run says: progress on stderr while it works, a summary when it is done."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from precompute.build import Build


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


class Reporter:
    """Progress bars on stderr, one per stage that runs."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Pace(),
            console=self.console,
        )

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

    def task(self, name: str, unit: str) -> Callable[[int, int], None]:
        """A bar for one stage; returns what the stage calls with the work done and all work.

        Its attribute `note` takes a few words on how the work goes, shown beside the pace.
        """
        self._complete()
        bar = self._bars.add_task(name, total=None, unit=unit, begun_at=0, note="")
        first = True

        def report(done: int, total: int) -> None:
            nonlocal first
            if first and done < total:
                self._bars.update(bar, begun_at=done)
            first = False
            self._bars.update(bar, completed=min(done, total), total=total)

        report.note = lambda text: self._bars.update(bar, note=text)
        return report

    def _complete(self) -> None:
        """Fill the bars so far; a stage need not report its end."""
        for bar in self._bars.tasks:
            self._bars.update(bar.id, total=bar.total or 1, completed=bar.total or 1)
            self._bars.stop_task(bar.id)


def quieten_libraries() -> None:
    """No progress bars and hints of transformers and diffusers between ours; their errors still come."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


def as_document(made: Build) -> dict[str, Any]:
    """A run as JSON."""
    header = made.header
    return {
        "atlas": str(made.out),
        "work": str(made.work),
        "seconds": round(made.seconds, 2),
        "sources": [
            {key: source[key] for key in ("name", "kind", "images", "paired", "pairing", "skipped")}
            for source in header["sources"]
        ],
        "dictionary": header["dictionary"],
        "skipped": str(made.skipped) if made.skipped else None,
        "stages": [asdict(outcome) for outcome in made.outcomes],
    }


def print_summary(made: Build) -> None:
    """A run in a few lines on stdout."""
    console = Console(soft_wrap=True, highlight=False)
    ran = [outcome for outcome in made.outcomes if outcome.action != "kept"]
    table = Table("source", "images", "pairs by", "skipped", box=None, pad_edge=False)
    for source in made.header["sources"]:
        table.add_row(source["name"], str(source["images"]), source["pairing"], str(source["skipped"] or ""))
    console.print(table)
    dictionary = made.header["dictionary"]
    fit = f", R2 {dictionary['r2']:.3f}" if "r2" in dictionary else ""
    console.print(f"{dictionary['concepts']} concepts, {dictionary['sparsity']} active per token{fit}")
    if made.skipped:
        console.print(f"Images that could not be used are listed in {made.skipped}")
    if ran:
        console.print(f"{made.out} is ready ({len(ran)} of {len(made.outcomes)} stages ran, {made.seconds:.0f} s).")
    else:
        console.print(f"{made.out} is up to date; nothing to do.")
