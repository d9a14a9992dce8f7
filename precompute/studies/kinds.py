"""The studies of a concept's drawings: from an atlas and an order to tables, a figure and a grid of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from engine.atlas import Atlas
from engine.blindspots.metrics import frechet_distance
from engine.figures.images import SIDE, Block, Row, image_grid
from engine.figures.samplers import drift_table, level_strips, neuron_bars, object_drift, strength_curves
from engine.figures.style import concept_names
from engine.samplers.generation import GenerationRequest, to_pil
from engine.samplers.metrics import PriorReference
from engine.samplers.models import ModelBundle
from engine.samplers.retrieval import score_pool
from precompute.studies.drift import concept_drift
from precompute.studies.files import Study
from precompute.studies.levels import draw_levels
from precompute.studies.neurons import compare_neurons
from precompute.studies.subject import Listener, Subject, concept_subject
from precompute.studies.survey import survey_neurons
from precompute.studies.sweep import sweep_strengths

Report = Callable[[int, int], None]


def sweep_study(
    atlas: Atlas, order: GenerationRequest, strengths: Sequence[float], own: int, listener: Listener
) -> Study:
    """Strength against everything else, see `sweep`; `own` samples of the prior are compared with."""
    subject = concept_subject(atlas, order)
    found = sweep_strengths(subject, strengths, yardstick_of(subject, own, listener), listener)
    table = pd.DataFrame(found.rows)
    name = name_of(atlas, order.concept)
    blocks = [
        block(images, f"score {row.score:.3g} ± {row.score_error:.1g}\ndiversity {row.diversity:.2f}")
        for row, images in zip(found.rows, found.images, strict=True)
    ]
    grid = image_grid(
        f"{name} at growing strength", [f"strength {row.strength:g}" for row in found.rows], [Row("", blocks)]
    )
    figure = strength_curves(table, concept=name, best=subject.best, subtitle=subtitle(order, own))
    settings = settings_of(subject, own, strengths=sorted(set(strengths)))
    return Study("sweep", atlas, settings, {"table": table}, figure, grid)


def levels_study(
    atlas: Atlas, order: GenerationRequest, shares: Sequence[float], own: int, listener: Listener
) -> Study:
    """Growing activation beside real images; see `precompute.studies.levels`."""
    subject = concept_subject(atlas, order)
    yardstick = yardstick_of(subject, own, listener)
    pool = score_pool(atlas, subject.score, subject.models.encoder.spec, subject.models.device)
    found = draw_levels(subject, shares, pool, yardstick, listener)
    table, samples = pd.DataFrame(found.rows), pd.DataFrame(found.samples)
    name, shown = name_of(atlas, order.concept), _spread(order.count)
    drawn, real = [], []
    for row, images in zip(found.rows, found.images, strict=True):
        short = "" if row.reached else f"\nout of reach: {row.target:.3g}"
        drawn.append(block(images[shown], f"score {row.score:.3g} ± {row.score_error:.1g}{short}"))
        beside = samples.loc[samples["share"] == row.share, "real_image"].to_numpy()[shown]
        real.append(Block([atlas.image(int(image)) for image in beside], f"score {row.real_score:.3g}"))
    columns = [f"{row.share:.0%} of the best real" if row.share else "not pushed" for row in found.rows]
    rows = [Row("drawn, the lowest score first", drawn), Row("real images of nearly the same scores", real)]
    figure = level_strips(table, samples, concept=name, subtitle=subtitle(order, own))
    settings = settings_of(subject, own, shares=sorted(set(shares)))
    grid = image_grid(f"{name} at growing activation", columns, rows)
    return Study("levels", atlas, settings, {"table": table, "samples": samples}, figure, grid)


def neurons_study(
    atlas: Atlas, order: GenerationRequest, neurons: int, own: int, listener: Listener, report: Report
) -> Study:
    """The concept against the neurons nearest to it; see `precompute.studies.neurons`."""
    subject = concept_subject(atlas, order)
    survey = survey_neurons(atlas, subject.score, subject.models.device, report)
    found = compare_neurons(subject, survey, yardstick_of(subject, own, listener), neurons, listener)
    table, name = pd.DataFrame(found.rows), name_of(atlas, order.concept)
    aims = [1.0] + [found.rows[0].share] * (len(found.rows) - 1)
    drawn = [
        block(images, f"{row.share:.0%} of its best real images" + (f"\nout of reach: {aim:.0%}" if row.note else ""))
        for row, images, aim in zip(found.rows, found.images, aims, strict=True)
    ]
    real = [
        Block([atlas.image(best.image) for best in references], f"selectivity {row.selectivity:.1f} sd")
        for row, references in zip(found.rows, found.references, strict=True)
    ]
    columns = [row.name + (f" (by {row.chosen_by})" if row.chosen_by else "") for row in found.rows]
    rows = [Row("drawn, the best first", drawn), Row("best real images", real)]
    figure = neuron_bars(table, concept=name, subtitle=subtitle(order, own))
    grid = image_grid(f"{name} against single neurons", columns, rows)
    return Study("neurons", atlas, settings_of(subject, own, neurons=neurons), {"table": table}, figure, grid)


def injection_study(
    atlas: Atlas,
    order: GenerationRequest,
    reference: int | str,
    ratios: Sequence[float] | None,
    target: float | None,
    own: int,
    listener: Listener,
) -> Study:
    """What serving a task costs; see `precompute.studies.drift`. `own` samples of the prior give the bound."""
    images: dict[float, Tensor] = {}
    rows = concept_drift(
        atlas, order.concept, reference, ratios, target=target, method=order.method, steps=order.steps,
        states=order.candidates, n=order.count, seed=order.seed, pool=own, listener=listener,
        on_images=images.__setitem__,
    )  # fmt: skip
    table, name = drift_table(rows), name_of(atlas, order.concept)
    task = f"fit “{reference}”" if isinstance(reference, str) else f"resemble image {reference}"
    blocks = [
        block(images.get(row.ratio), f"score {row.score:.3g}, task {row.task:.2f}\n{cause} {row.drift:.2f}")
        for row, cause in zip(rows, ["drift by other noise", *["drift"] * (len(rows) - 1)], strict=True)
    ]
    columns = [f"task weight {row.ratio:.3g}" if row.ratio else "without the task" for row in rows]
    if not isinstance(reference, str):
        columns.insert(0, "reference")
        blocks.insert(0, Block([atlas.image(reference)], f"image {reference}"))
    figure = object_drift(table, task=f"{name} should also {task}", images=order.count)
    settings = {
        **ordered(order),
        "reference": reference,
        "ratios": [row.ratio for row in rows[1:]],
        "target": target,
        "prior_samples": own,
        "device": ModelBundle(atlas).device,
    }
    grid = image_grid(f"{name} should also {task}", columns, [Row("", blocks)])
    return Study("injection", atlas, settings, {"table": table}, figure, grid)


def name_of(atlas: Atlas, concept: int) -> str:
    """A concept's label and number."""
    return concept_names(atlas.concepts["label"].iloc[[concept]], [concept])[0]


def yardstick_of(subject: Subject, own: int, listener: Listener) -> PriorReference:
    """Samples of the prior, with both distances."""
    order = subject.order
    hear = listener("samples of the prior")
    return PriorReference.sample(subject.models, order.steps, own, order.seed, _frechet, hear)


def _frechet(own: np.ndarray, seen: np.ndarray) -> float:
    return frechet_distance(own, seen).distance


def settings_of(subject: Subject, own: int, **more: Any) -> dict[str, Any]:
    """What a study was made with."""
    best = [asdict(reference) for reference in subject.references]
    return {**ordered(subject.order), **more, "prior_samples": own, "best_real_score": subject.best, "best_real": best,
            "device": subject.models.device}  # fmt: skip


def ordered(order: GenerationRequest) -> dict[str, Any]:
    """Of an order, what holds for every row; strengths are in the table."""
    stored = order.parameters()
    return {name: stored[name] for name in ("concept", "method", "count", "steps", "states", "seed")}


def subtitle(order: GenerationRequest, own: int) -> str:
    """What every point of a figure rests on."""
    return f"{order.method}, {order.steps} steps, n = {order.count} images a point, {own} samples of the prior"


def block(images: Tensor | None, caption: str) -> Block:
    """The first of a row's images [n, 3, H, W], or an empty block where none could be drawn."""
    return Block((), "out of reach") if images is None else Block(to_pil(images[: SIDE * SIDE]), caption)


def _spread(count: int) -> list[int]:
    """Places of a block's images among `count` in order: the first, the last, and evenly between."""
    return np.linspace(0, count - 1, SIDE * SIDE).round().astype(int).tolist()
