"""Held-out concepts of the demo atlas by every sampler at equal activation, as a benchmark measured them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures.images import GAP, MARGIN, SEAM, SIDE
from engine.figures.samplers import distance_diversity
from engine.files import DATA
from engine.reports.base import Report, ReportView, figure_report, register

FOLDER = DATA / "samplers"
"""The comparison, and one picture per concept."""
COMMAND = "python -m precompute benchmark samplers --json"
RIVAL, PRIOR, CORPUS = "energy-guidance", "prior", "corpus"
BASES = (PRIOR, CORPUS)
"""Rows that no method drew: what a method's figures are to be compared with."""
METHODS = {
    PRIOR: "prior, fresh samples",
    CORPUS: "real images, at random",
    RIVAL: "energy guidance",
    "energy-guidance-light": "energy guidance, light",
    "energydps": "EnergyDPS, Algorithm 1",
    "energydps-smc": "EnergyDPS, particle filter",
    "retrieval": "retrieval, best K",
    "retrieval-soft": "retrieval, tilt",
    "maco": "MACO",
    "optimisation": "regularised optimisation",
    "soft-prompt": "soft prompts",
    "accentuation": "feature accentuation",
}
"""The benchmark's names of its methods, and what a person reads."""


def method_name(name: str) -> str:
    """What a person reads for a benchmark's name of a method; of `method@prior` also the prior's name."""
    method, _, prior = name.partition("@")
    return METHODS.get(method, method) + (f", prior {prior}" if prior else "")


JUDGES = {"encoder": "the encoder's class token", "patches": "the encoder's patches", "dinov2": "DINOv2"}
DISTANCES = ("frechet", "kid", "diversity")
GAIN = ("gain", "error")
RECOGNISED = ("recognised",)
"""The headline: share of a method's images in which the atlas's judge sees the concept; older comparisons lack it."""
COSTS = ("slope", "seconds", "megabytes")
TILE, TOP = 64, 121
"""Side of a picture's images, and where they begin below its title, its headings and the concept's name."""
ADVICE = re.compile(r"[:;] choose .*$")
"""The end of a note, for whoever runs the benchmark."""


@dataclass(frozen=True)
class Comparison:
    """What the benchmark measured."""

    concepts: list[int]
    count: int
    """Images of a concept by each method."""
    tolerance: float
    """Share of the target that a mean score may miss."""
    judges: list[str]
    """Keys of JUDGES."""
    table: pd.DataFrame
    """Indexed by the benchmark's name of a method, BASES first: ``method, recognised`` (share of the images in which
    the atlas's judge sees the concept; only if it was measured), ``matched, of_target``, a column such as ``encoder
    frechet`` per judge and distance, and COSTS."""
    fair: pd.DataFrame
    """Two rows per method but energy guidance, its own and energy guidance's over the concepts where both reached the
    target: ``method, concepts, images_of``, the distances as in `table`, and in energy guidance's rows per judge
    ``encoder gain``, by how much it is the more diverse, and ``encoder error``, the standard error of that
    mean over the concepts."""
    notes: dict[tuple[int, str], str]
    """Why a method missed the target of a concept."""
    labels: dict[int, str]
    """Of the concepts, in the atlas that they were drawn from; empty in files of before they were kept."""
    encoder: str | None
    """Id of that atlas's encoder: in an atlas of another the same number is another concept. None: not kept."""

    @property
    def methods(self) -> list[str]:
        """The benchmark's names of the methods in its order, without BASES."""
        return [name for name in self.table.index if name not in BASES]

    @property
    def bases(self) -> list[str]:
        """Those of BASES that were measured."""
        return [name for name in self.table.index if name in BASES]


class Tile(NamedTuple):
    """One image inside a picture, in units of its own side."""

    left: float
    top: float
    width: float
    """Of the whole picture."""


def measured() -> Comparison:
    """Read what the benchmark measured.

    Raises
    ------
    BlindspotError
        If the file is missing or not the benchmark's.
    """
    path = FOLDER / "comparison.json"
    try:
        return _comparison(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise BlindspotError(f"The samplers were not compared yet: run `{COMMAND} > {path}`.") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BlindspotError(f"{path} is not what `{COMMAND}` prints: write it anew.") from error


def _comparison(report: dict[str, Any]) -> Comparison:
    found = report["table"]
    judges = [judge for judge in JUDGES if judge in found[PRIOR]]
    rows = {}
    for name, row in found.items():
        known = {} if name in BASES else {column: row[column] for column in ("matched", "of_target", *COSTS)}
        known |= {column: row[column] for column in RECOGNISED if column in row}
        rows[name] = {"method": method_name(name), **known, **_distances(row, judges)}
    recognised = [column for column in RECOGNISED if any(column in row for row in found.values())]
    columns = ["method", *recognised, "matched", "of_target", *judged_columns(judges), *COSTS]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"matched": "Int64"})
    table = table.astype(dict.fromkeys(recognised, float))
    notes = {}
    for place, note in report["notes"].items():
        concept, name = place.split(" ", 1)
        notes[int(concept), name] = ADVICE.sub(".", note)
    concepts = [int(concept) for concept in report["concepts"]]
    labels = {int(concept): str(label) for concept, label in report.get("labels", {}).items()}
    return Comparison(
        concepts, report["count"], report["tolerance"], judges, table, _fair(found, judges), notes, labels,
        report.get("encoder"),
    )  # fmt: skip


def _fair(found: dict[str, Any], judges: list[str]) -> pd.DataFrame:
    rows = []
    for name in (name for name in found if name not in (*BASES, RIVAL)):
        both, method = found[name]["fair"], method_name(name)
        for side, whose in (("own", method), (RIVAL, METHODS[RIVAL])):
            seen = {judge: both[judge][side] for judge in judges if judge in both}
            identity = {"method": method, "concepts": both["concepts"], "images_of": whose}
            gains = {f"{judge} {part}": both[judge].get(part) for judge in seen for part in GAIN if side == RIVAL}
            rows.append(identity | _distances(seen, [*seen]) | gains)
    columns = [f"{judge} {part}" for judge in judges for part in GAIN]
    return pd.DataFrame(rows, columns=["method", "concepts", "images_of", *judged_columns(judges), *columns])


def judged_columns(judges: list[str]) -> list[str]:
    """Return the columns that hold what the judges see."""
    return [f"{judge} {distance}" for judge in judges for distance in DISTANCES]


def _distances(row: dict[str, Any], judges: list[str]) -> dict[str, float]:
    return {f"{judge} {distance}": row[judge][distance] for judge in judges for distance in DISTANCES}


def tiles(concept: int) -> list[list[Tile]]:
    """Return where a concept's picture holds its images: those of the best real ones, then those of each method.

    Raises
    ------
    BlindspotError
        If there is no such picture, or it is not one of these methods.
    """
    found = measured()
    path = FOLDER / f"{concept}.webp"
    step = SIDE * TILE + (SIDE - 1) * SEAM + GAP
    blocks = 1 + len(found.methods)
    try:
        with Image.open(path, formats=["WEBP"]) as picture:
            width = picture.width
    except OSError as error:
        raise BlindspotError(f"There is no picture of this concept: {path} cannot be read.") from error
    if width != 2 * MARGIN + blocks * step - GAP:
        raise BlindspotError(f"{path} does not show the methods of comparison.json: draw it anew.")
    inner = TILE - 2
    return [
        [
            Tile((MARGIN + block * step + i % SIDE * (TILE + SEAM) + 1) / inner,
                 (TOP + i // SIDE * (TILE + SEAM) + 1) / inner, width / inner)
            for i in range(SIDE * SIDE if block == 0 else min(found.count, SIDE * SIDE))
        ]
        for block in range(blocks)
    ]  # fmt: skip


def _measured(atlas: Atlas) -> bool:
    return (FOLDER / "comparison.json").is_file()


@register("samplers", possible=_measured)
def comparison(atlas: Atlas, view: ReportView) -> Report:
    """Every method in numbers, below fresh samples of the prior and real images."""
    found = measured()
    return Report(f"Samplers at equal activation, {_extent(found)}", found.table.reset_index(drop=True))


@register("samplers-fair", possible=_measured)
def fair(atlas: Atlas, view: ReportView) -> Report:
    """Every method beside energy guidance over the concepts where both reached the target."""
    found = measured()
    return Report(f"Samplers beside energy guidance where both reached the target, {_extent(found)}", found.fair)


def _extent(found: Comparison) -> str:
    """Return what was drawn: whichever atlas is open, these are the demo's concepts."""
    return f"{len(found.concepts)} concepts of the demo atlas x {found.count} images of each method"


@register("samplers-distances", possible=_measured)
def distances(atlas: Atlas, view: ReportView) -> Report:
    """Distance to the prior against diversity, by each judge."""
    found = measured()
    parts = []
    for judge in found.judges:
        renamed = {f"{judge} {distance}": distance for distance in DISTANCES}
        part = found.table[["method", "matched", *renamed]].rename(columns=renamed)
        parts.append(part.assign(judge=JUDGES[judge]))
    rows = pd.concat(parts)
    chance = {str(judge): float(value) for judge, value in rows.loc[[PRIOR]].set_index("judge")["frechet"].items()}
    figure = distance_diversity(rows.drop(found.bases), chance, concepts=len(found.concepts), count=found.count)
    return figure_report(figure, rows[["judge", "method", "matched", *DISTANCES]])
