"""What a sampler drew at each strength, and what it took: searches, studies and comparisons look back at it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.samplers.base import OnStep, Sampler, Samples, Score


class Costed(NamedTuple):
    """What some work gave and took."""

    result: Any
    seconds: float
    gigabytes: float = math.nan
    """Memory it needed at most; NaN where nobody looked."""


Watch = Callable[[Callable[[], Any]], Costed]
"""Does the work and says what it took."""


def timed(work: Callable[[], Any]) -> Costed:
    """Do the work and time it."""
    began = time.perf_counter()
    return Costed(work(), time.perf_counter() - began)


class Drawn(NamedTuple):
    """A batch, and what drawing it took."""

    samples: Samples
    strength: float
    seconds: float
    """Of all samples together."""
    gigabytes: float = math.nan
    """As in `Costed`."""

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(self.samples.scores.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean score."""
        return standard_error(self.samples.scores.tolist())


@dataclass(frozen=True)
class Recorded:
    """A sampler at one strength that notes what it drew of a score, n and seed, and does not draw it again."""

    sampler: Sampler
    strength: float
    drawn: dict[float, Drawn]
    """Strength to drawing, shared by the samplers of a search."""
    watch: Watch = timed
    """Measures what drawing takes."""
    listener: OnStep | None = None
    """Hears of the steps where a caller has nobody else listen."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        if self.strength not in self.drawn:
            listener = on_step or self.listener
            samples, *costs = self.watch(lambda: self.sampler.sample(score, n, seed, listener))
            self.drawn[self.strength] = Drawn(samples, self.strength, *costs)
        return self.drawn[self.strength].samples


def nearest(drawn: dict[float, Drawn], target: float) -> Drawn:
    """The drawing whose mean score comes nearest to a target."""
    return min(drawn.values(), key=lambda drawing: abs(drawing.mean - target))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of two or more values."""
    return statistics.stdev(values) / math.sqrt(len(values))
