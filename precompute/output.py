"""What commands print on stdout when a program asks: one JSON document and no more."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_json(document: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Print a document."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
