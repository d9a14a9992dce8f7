"""The command `benchmark NAME [OPTIONS]`: runs a module of the package `benchmarks`, which parses its own options."""

from __future__ import annotations

import ast
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import BlindspotError

NAMES = ("adm", "authors", "click", "coverage", "dictionary", "encode", "encoders", "guidance", "invariance", "light",
         "memory", "mixture", "planted", "probes", "recognition", "rerun", "samplers", "scale")  # fmt: skip
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Everything after the name, `--help` too, goes to the benchmark."""


def benchmark(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which; without a name, all are listed.")] = None,
) -> None:
    """Measure what the README and the app quote; without a name lists the benchmarks, `NAME --help` says more."""
    if name in (None, "--help"):
        typer.echo("Usage: python -m precompute benchmark NAME [OPTIONS]\n")
        for each in NAMES:
            typer.echo(f"  {each:12s}{_question(each)}")
        return
    if name not in NAMES:
        raise BlindspotError(f"There is no benchmark {name!r}: choose among {', '.join(NAMES)}.")
    sys.argv = [f"precompute benchmark {name}", *context.args]
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        raise BlindspotError(
            f"Benchmark {name!r} needs {error.name}: run it in a checkout with requirements-dev.txt installed."
        ) from error
    module.main()


def _question(name: str) -> str:
    """The first line of a benchmark's docstring, read without importing it."""
    spec = find_spec(f"benchmarks.{name}")
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) if spec and spec.origin else ""
    return (text or "").split("\n")[0]
