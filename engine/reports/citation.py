"""How to cite one concept of an atlas: what it is, what is said of it, and the fingerprints that fix both."""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.atlas import Atlas
from engine.reports.base import ReportView, view_basis, view_table
from engine.reports.files import PROJECT, atlas_origin

DIGITS = 12
"""Hex digits of a fingerprint that are quoted: enough to tell any two atlases apart."""


class Citation(NamedTuple):
    """A citation in two forms."""

    text: str
    bibtex: str


def cite_concept(atlas: Atlas, concept: int, view: ReportView) -> Citation:
    """Return how to cite a concept and its delta in a view's model."""
    row, origin = view_table(atlas, view).loc[concept], atlas_origin(atlas, "concept")
    recipe, content = (origin[f"{name} fingerprint"][:DIGITS] for name in ("recipe", "content"))
    label = f" (“{row['label']}”)" if row["label"] else ""
    name = atlas.info.name or "unnamed"
    sure = "" if atlas.info.published else f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}], q = {row['q']:.2g}"
    number = f"δ = {row['delta']:.2f}{sure} in {view.model} by {view_basis(atlas, view).sentence()}"
    text = (
        f"Concept {concept}{label} of the atlas “{name}”, recipe {recipe}, content {content}; {number}. "
        f"Blindspot Atlas {origin['version']}."
    )
    fields = {
        "title": f"{{Concept {concept}{_tex(label)} of the atlas ``{_tex(name)}''}}",
        "author": "{{The Blindspot Atlas authors}}",
        "howpublished": f"{{Blindspot Atlas {origin['version']}}}",
        "note": f"{{Recipe {recipe}, content {content}; {_tex(number)}}}",
    }
    lines = ",\n".join(f"  {field} = {value}" for field, value in fields.items())
    return Citation(text, f"@misc{{{PROJECT}-{content}-{concept},\n{lines}\n}}")


def _tex(text: str) -> str:
    """Escape what LaTeX reads as commands; δ becomes mathematics."""
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    escaped = escaped.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    return escaped.replace("δ", r"$\delta$").replace("σ", r"$\sigma$")
