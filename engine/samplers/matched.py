"""Drawing at a wanted mean score: the search of `matching`, whose last samples are the drawing."""

from __future__ import annotations

from collections.abc import Callable

from engine.samplers.base import OnStep, Sampler, Samples, Score
from engine.samplers.matching import Match, match_strength
from engine.samplers.record import Drawn, Recorded

FEWEST = 4
"""Samples of a trial, where fewer are wanted: a mean of less says little."""


def draw_matched(
    factory: Callable[[float], Sampler],
    score: Score,
    target: float,
    *,
    count: int,
    start: float,
    seed: int = 0,
    on_step: OnStep | None = None,
    drawn: dict[float, Drawn] | None = None,
) -> tuple[Samples, Match]:
    """Draw images whose mean score is `target`, by the strength that `match_strength` finds.

    Parameters
    ----------
    factory
        Strength to sampler.
    score, target
        What the images should excite, and the mean to reach.
    count
        Images wanted; a trial draws at least `FEWEST`.
    start
        First strength to try.
    seed, on_step
        As in `Sampler.sample`; the listener hears of the steps of every trial.
    drawn
        Drawings of an earlier search by the same factory, score and seed, which are not made again; new ones are added.

    Raises
    ------
    BlindspotError
        If the target is out of reach.
    Cancelled
        If `on_step` said so.
    """
    drawn = {} if drawn is None else drawn
    match = match_strength(
        lambda strength: Recorded(factory(strength), strength, drawn, listener=on_step),
        score,
        target,
        start=start,
        n=max(count, FEWEST),
        seed=seed,
    )
    samples = drawn[match.strength].samples
    return Samples(samples.images[:count], samples.scores[:count], samples.trace[:, :count]), match
