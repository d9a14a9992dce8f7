"""What a search for members of an invariant set is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.errors import BlindspotError

METHODS = ("walk", "projection", "descent")
OPTIMISERS = ("sgd", "adam", "adagrad", "shampoo")
CHOICES = ("farthest-first", "k-dpp")
MAX_MEMBERS, MAX_STEPS = 256, 250


@dataclass(frozen=True)
class InvariantRequest:
    """Which members to draw.

    Raises
    ------
    BlindspotError
        For what makes no sense.
    """

    target: str
    """Words for f, see `engine.invariance.parsing.FORMS`."""
    image: int | None = None
    """Query x*: an image of the atlas."""
    values: tuple[float, ...] = ()
    """f(x*) as numbers, where there is no query."""
    count: int = 4
    """How many members."""
    seed: int = 0
    steps: int = 10
    """Steps of the ODE sampler, were it to start from pure noise."""
    signal: float = 0.7
    """Share of variance that is signal at the level where members are led onto the set and walk; `descent` starts from
    pure noise."""
    method: str = "walk"
    """One of `METHODS`."""
    tolerance: float = 0.01
    """Largest |f(x) - f(x*)| of a member, as a share of |f(x*)|."""
    walk_steps: int = 2
    """Steps along the set, after a member was found."""
    iterations: int = 16
    """Most Gauss-Newton steps; of the descent 32 times as many."""
    low_pass: str = "auto"
    """Filters after which the response is to be the same, too, see `engine.invariance.filters.parse_low_pass`: what is
    left is what people see. The descent adds their deviations to its loss (eqs. 3.3, 3.6); the other methods hold the
    responses to the filtered images at f(x*) exactly. `auto` is ideal:0.5, given up in a member's last try if it
    cannot be held; the descent then has none, as in section 3.3.2. The whole of Algorithm 1 is `multi-printed`."""
    optimiser: str = "sgd"
    """Of the descent: one of `OPTIMISERS`."""
    learning_rate: float = 10.0
    """Of the descent."""
    keep_norm: bool = True
    """Whether the descent scales a latent back to its first norm after each step, as DiG-IN does; the thesis omits
    it."""
    choose: int = 0
    """How many of the members to name as those that differ most; 0: none."""
    choice: str = "farthest-first"
    """One of `CHOICES`: extremes one after the other, or a random set, the more likely the more its members differ."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BlindspotError(f"There is no method {self.method!r}: choose one of {', '.join(METHODS)}.")
        if not 1 <= self.count <= MAX_MEMBERS:
            raise BlindspotError(f"{self.count} members were asked for: ask for 1 to {MAX_MEMBERS}.")
        if self.optimiser not in OPTIMISERS:
            raise BlindspotError(f"There is no optimiser {self.optimiser!r}: choose one of {', '.join(OPTIMISERS)}.")
        if self.choice not in CHOICES:
            raise BlindspotError(f"There is no choice {self.choice!r}: choose one of {', '.join(CHOICES)}.")
        if not 0 <= self.choose <= self.count:
            raise BlindspotError(f"{self.choose} of {self.count} members cannot be chosen: choose 0 to {self.count}.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise BlindspotError(f"The sampler cannot go {self.steps} steps: choose 1 to {MAX_STEPS}.")
        if not 0 <= self.signal < 1:
            raise BlindspotError(f"A level with a signal of {self.signal:g} makes no sense: choose 0 up to below 1.")
        if self.seed < 0:
            raise BlindspotError(f"The seed {self.seed} is negative: choose 0 or more.")
        if not (math.isfinite(self.tolerance) and 0 < self.tolerance < 1):
            raise BlindspotError(f"The tolerance {self.tolerance} is no share between 0 and 1.")
        if not 0 <= self.walk_steps <= 1000 or not 1 <= self.iterations <= 1000:
            raise BlindspotError("Choose 0 to 1000 steps of the walk and 1 to 1000 iterations.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise BlindspotError(f"The learning rate must be a number above 0, not {self.learning_rate}.")
        if self.low_pass.startswith("multi") and self.method != "descent":
            raise BlindspotError(
                f"{self.low_pass!r} is a loss of method descent: hardly an image answers alike at every cut-off, so no "
                "set is left to walk on; name one filter, such as ideal:0.5."
            )
        if (self.image is None) == (not self.values):
            raise BlindspotError("Give either a query image or the values to reach, not both.")
