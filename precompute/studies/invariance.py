"""Invariant sets as "EquiDiff" (Sadlej 2025) evaluates them: many members of a few sets, and the grid of descents.

`table` is the protocol of tables 4.2 and A.3, a row for each target and method: how far members are from f(x*) (eq.
4.1), how far their embeddings are from real images' (a Frechet distance in the atlas's encoder, where the thesis has
Inception's), how different they are, and what they cost. `grid` is that of tables A.1 and A.2: descents by optimiser,
learning rate and low-pass filter, from the same noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from engine.atlas import Atlas
from engine.blindspots.metrics import frechet_distance
from engine.errors import BlindspotError
from engine.figures.images import SIDE, Block, Row, image_grid
from engine.figures.samplers import invariant_bars
from engine.invariance.filters import parse_low_pass
from engine.invariance.parsing import parse_target
from engine.invariance.request import METHODS, OPTIMISERS, InvariantRequest
from engine.invariance.sampling import CUTOFFS, REFERENCES, InvariantResult, find_members
from engine.invariance.search import OnProgress
from engine.samplers.metrics import diversity, embed, spectral_slope
from engine.samplers.models import ModelBundle, real_images, thumbnails
from engine.samplers.records import to_pil
from precompute.recipe import first_problem, read_yaml
from precompute.studies.base import Study, drawn_by

HALF = CUTOFFS.index(0.5)
POOL = 256
"""Real images among which a target's query is looked for."""
ALL = "all"
"""Target of the rows that average over targets."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class InvarianceSettings:
    """What a study of invariant sets draws; a recipe's keys are these fields."""

    targets: tuple[str, ...] = ()
    """Words for f, see `engine.invariance.parsing.FORMS`."""
    images: tuple[int, ...] = ()
    """Query of each target, an image of the atlas; none: of the real images, the one with the largest response."""
    methods: tuple[str, ...] = ("walk", "descent")
    """Of `engine.invariance.request.METHODS`."""
    members: Annotated[int, Field(ge=2)] = 32
    """Of each set; the thesis has 32."""
    seed: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=1)] = InvariantRequest.steps
    """Of the ODE sampler."""
    low_pass: str = InvariantRequest.low_pass
    """Filters after which the response is held, too."""
    tolerance: float = InvariantRequest.tolerance
    """Largest distance of a member, as a share of |f(x*)|."""
    descent_steps: Annotated[int, Field(ge=32)] = 512
    """Most gradient steps; the thesis has 512 and 1024."""
    optimisers: tuple[str, ...] = ()
    """Of the grid; none: no grid. The thesis has all of `engine.invariance.request.OPTIMISERS`."""
    rates: tuple[float, ...] = (1.0, 5.0, 10.0, 30.0, 50.0)
    filters: tuple[str, ...] = ("none", "gaussian:0.1", "ideal:0.5", "butterworth:0.3:4", "multi")
    """Of the grid, each in the words of `parse_low_pass`."""
    grid_members: Annotated[int, Field(ge=1)] = 8

    def check(self) -> None:
        """Raise `BlindspotError` for settings that make no sense."""
        if not self.targets:
            raise BlindspotError("Nothing is to be held constant: name one or more targets, such as concept:54.")
        if self.images and len(self.images) != len(self.targets):
            raise BlindspotError(
                f"{len(self.targets)} targets have {len(self.images)} query images: name one for each, or none."
            )
        for known, named, what in ((METHODS, self.methods, "method"), (OPTIMISERS, self.optimisers, "optimiser")):
            for name in named:
                if name not in known:
                    raise BlindspotError(f"There is no {what} {name!r}: choose from {', '.join(known)}.")
        for words in (self.low_pass, *self.filters):
            parse_low_pass(words)
        for target in self.targets:
            parse_target(target)


def load_settings(recipe: Path | None, given: Mapping[str, Any]) -> InvarianceSettings:
    """Settings from a recipe, with what was given besides in its place.

    Raises
    ------
    BlindspotError
        If the recipe cannot be read, or a setting has a bad value.
    """
    said = {**(read_yaml(recipe) if recipe else {}), **given}
    try:
        settings = TypeAdapter(InvarianceSettings).validate_python(said)
    except ValidationError as error:
        raise BlindspotError(f"{recipe.name if recipe else 'The study'}: {first_problem(error)}") from None
    settings.check()
    return settings


class _Sets:
    """The sets that a study draws, with one set of models."""

    def __init__(self, models: ModelBundle, settings: InvarianceSettings, download: bool):
        self.models, self.settings, self.download = models, settings, download
        self.real = embed(
            models.encoder, thumbnails(models.atlas, real_images(models.atlas, REFERENCES), models.encoder.spec)
        )

    def query(self, number: int) -> int:
        """The query image of a target."""
        if self.settings.images:
            return self.settings.images[number]
        target = parse_target(self.settings.targets[number]).build(self.models, None, self.download)
        ids = real_images(self.models.atlas, POOL)
        with torch.no_grad():
            responses = [
                target(thumbnails(self.models.atlas, part, self.models.encoder.spec).to(self.models.device))
                for part in np.array_split(ids, max(1, len(ids) // 16))
            ]
        return int(ids[int(torch.cat(responses).norm(dim=1).argmax())])

    def draw(self, target: str, image: int, on_progress: OnProgress | None = None, **how: Any) -> InvariantResult:
        settings = self.settings
        request = InvariantRequest(
            target, image, count=settings.members, seed=settings.seed, steps=settings.steps,
            tolerance=settings.tolerance,
        )  # fmt: skip
        if how.get("method") == "descent":
            how["iterations"] = max(1, settings.descent_steps // 32)
        return find_members(self.models, replace(request, **how), on_progress, self.download)

    def row(self, result: InvariantResult) -> dict[str, Any]:
        """A set's figures; see the module."""
        images, n = result.images, len(result.members)
        made = embed(self.models.encoder, images)
        off = np.array([member.residual for member in result.members])
        found = [member for member in result.members if member.converged]
        return {
            "within": len(found) / n,
            "l2": float(off.mean()),
            "l2_sd": float(off.std(ddof=1)),
            "relative": float(off.mean() / (np.linalg.norm(result.wanted) or 1.0)),
            "robust": float(np.mean([member.curve[HALF] < 0.1 for member in found])) if found else None,
            "frechet": frechet_distance(self.real, made).distance,
            "diversity": diversity(made),
            "slope": float(spectral_slope(images).mean()),
            "evaluations": result.evaluations / n,
            "seconds": result.seconds / n,
        }


def invariance_study(
    atlas: Atlas,
    settings: InvarianceSettings,
    task: Callable[[str, str], Callable[[int, int], None]],
    placement: str | None = None,
    download: bool = False,
) -> Study:
    """Draw the sets of all targets by all methods, and the grid of descents.

    Parameters
    ----------
    atlas
        Its prior draws.
    settings
        What to draw.
    task
        Given the name and the unit of work, returns what its progress is reported to.
    placement
        Device.
    download
        Whether a classifier may be fetched from the hub.

    Raises
    ------
    BlindspotError
        For settings that make no sense, targets or images that do not exist.
    """
    settings.check()
    sets = _Sets(ModelBundle(atlas, placement), settings, download)
    queries = [sets.query(number) for number in range(len(settings.targets))]
    table, pictures = [], []
    for target, image in zip(settings.targets, queries, strict=True):
        blocks = []
        for method in settings.methods:
            progress = _reporting(task(f"{target}, {method}", "steps"))
            found = sets.draw(target, image, progress, method=method, low_pass=settings.low_pass)
            table.append({"target": target, "image": image, "method": method, "response": _said(found.wanted)}
                         | sets.row(found))  # fmt: skip
            blocks.append(Block(to_pil(found.images[: SIDE * SIDE]), f"{method}, {table[-1]['within']:.0%} within"))
        query = thumbnails(atlas, [image], sets.models.encoder.spec)
        pictures.append(Row(f"{target} of image {image}", (Block(to_pil(query), "query"), *blocks)))
    rows = pd.DataFrame(table)
    tables = {"table": pd.concat([rows, _averages(rows)], ignore_index=True)}
    if settings.optimisers:
        tables["grid"] = _grid(sets, queries, task)
    subtitle = f"n = {settings.members} members a set, tolerance {settings.tolerance:.0%}, {atlas.info.name}"
    return Study(
        "invariance", atlas, {**asdict(settings), "queries": queries, **drawn_by(sets.models)}, tables,
        invariant_bars(_averages(rows), subtitle=subtitle), image_grid("Members of invariant sets", (), pictures),
    )  # fmt: skip


def _reporting(bar: Callable[[int, int], None]) -> OnProgress:
    """A search's callback that moves a bar."""

    def on_progress(done: int, total: int, images: Tensor | None) -> None:
        bar(done, total)

    return on_progress


def _averages(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, the mean over its targets."""
    numbers = rows.drop(columns=["target", "image", "response"]).groupby("method", sort=False).mean().reset_index()
    return numbers.assign(target=ALL, image=-1, response="")


def _grid(sets: _Sets, queries: Sequence[int], task: Callable[[str, str], Callable[[int, int], None]]) -> pd.DataFrame:
    """Descents by optimiser, rate and filter, over all queries; losses are |f(x) - f(x*)|, without the filters."""
    settings = sets.settings
    cells = list(itertools.product(settings.optimisers, settings.rates, settings.filters))
    bar, rows = task("grid of descents", "settings"), []
    for done, (optimiser, rate, words) in enumerate(cells):
        bar(done, len(cells))
        each = [
            sets.draw(target, image, method="descent", optimiser=optimiser, learning_rate=rate, low_pass=words,
                      count=settings.grid_members)
            for target, image in zip(settings.targets, queries, strict=True)
        ]  # fmt: skip
        off = np.array([[member.residual for member in result.members] for result in each])
        rows.append({
            "optimiser": optimiser, "rate": rate, "filter": words, "least": float(off.min()),
            "mean": float(off.mean()), "largest": float(off.max()), "sd": float(off.std()),
            "within": float(np.mean([member.converged for result in each for member in result.members])),
            "evaluations": sum(result.evaluations for result in each) / off.size,
        })  # fmt: skip
    bar(len(cells), len(cells))
    return pd.DataFrame(rows)


def _said(wanted: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in wanted[:3])
    return shown if len(wanted) <= 3 else f"{shown} and {len(wanted) - 3} more"
