"""The study that compares methods: what each makes of a concept at the same mean score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from engine.atlas import Atlas
from engine.figures.images import Block, Row, image_grid
from engine.figures.samplers import method_bars
from engine.samplers.generation import GenerationRequest
from engine.samplers.metrics import PriorReference, Quality
from engine.samplers.registry import SamplerSettings
from precompute.studies.comparison import METHODS, Contest, Entry, compete, require_comparable
from precompute.studies.files import Study
from precompute.studies.kinds import block, name_of, settings_of, yardstick_of
from precompute.studies.subject import Listener, concept_subject


def methods_study(
    atlas: Atlas,
    order: GenerationRequest,
    methods: Sequence[str] | None,
    own: int,
    listener: Listener,
    report: Callable[[int, int], None],
) -> Study:
    """Every method at the mean score of the best real images; see `precompute.studies.comparison`."""
    names = list(dict.fromkeys(methods or METHODS))
    require_comparable(names)
    subject = concept_subject(atlas, order)
    yardstick = yardstick_of(subject, own, listener)
    given = SamplerSettings(steps=order.steps, strength=0.0, particles=order.particles, candidates=order.candidates)
    contest = Contest(subject.score, subject.best, given, order.count, order.seed)
    entries = {}
    for done, name in enumerate(names):
        report(done, len(names))
        entries[name] = compete(name, subject.models, contest)
    report(len(names), len(names))
    table = pd.DataFrame([_row(name, entry, subject.best, yardstick) for name, entry in entries.items()])
    concept = name_of(atlas, order.concept)
    real = Block([atlas.image(reference.image) for reference in subject.references], f"score {subject.best:.3g}")
    blocks = [
        block(
            entry.images if len(entry.images) else None,
            f"score {entry.score:.3g}" + ("" if entry.matched else "\nnot matched"),
        )
        for entry in entries.values()
    ]
    grid = image_grid(f"{concept} at equal activation", ["best real images", *names], [Row("", [real, *blocks])])
    subtitle = f"{order.steps} steps, n = {order.count} images a method, {own} samples of the prior"
    figure = method_bars(table, concept=concept, subtitle=subtitle)
    return Study("methods", atlas, settings_of(subject, own, methods=names), {"table": table}, figure, grid)


def _row(name: str, entry: Entry, target: float, yardstick: PriorReference) -> dict:
    """A method's figures; NaN where nothing could be drawn."""
    drawn = len(entry.images) > 1
    quality = yardstick.measure(entry.images) if drawn else Quality(*[math.nan] * 4)
    facts = {key: value for key, value in entry._asdict().items() if key not in ("images", "gigabytes")}
    return {"method": name, "target": target, "of_target": entry.score / target, **facts, **quality._asdict()}
