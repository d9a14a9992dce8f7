"""How fast and how dear asking a reader may become."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

from engine.errors import BlindspotError

MILLION = 1_000_000
ANSWER_TOKENS = 150
"""Tokens that an answer is expected to have, for plans and the budget."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a failed call is sent again: doubled from try to try."""
LONGEST_HOLD = 600.0
"""Seconds that an endpoint's Retry-After can ask for; one that asks for more is given up."""


@dataclass(frozen=True)
class Limits:
    """What asking may take.

    Raises
    ------
    BlindspotError
        If a number cannot be, or a budget has no prices.
    """

    per_minute: float | None = None
    """Calls sent in a minute."""
    budget: float | None = None
    """Money spent by this run, in the prices' currency; calls under way when it is reached may exceed it a little."""
    price_in: float | None = None
    """Of a million tokens of questions."""
    price_out: float | None = None
    """Of a million tokens of answers."""
    retries: int = 5
    """Times that a call is sent again after 429, a server's error, a timeout or a broken reply."""
    timeout: float = 120.0
    """Seconds until a call without a reply counts as failed."""
    concurrency: int = 4
    """Calls under way at once."""
    max_tokens: int = 1000
    """Of one answer."""
    again: bool = False
    """Whether to ask again what was refused, malformed, or lost when an earlier run was killed."""

    def __post_init__(self) -> None:
        for name, least in (("per_minute", 0), ("budget", 0), ("timeout", 0), ("concurrency", 1), ("max_tokens", 1)):
            value = getattr(self, name)
            if value is not None and not ((value >= least and value > 0) or (name == "budget" and value == 0)):
                raise BlindspotError(f"The limit {name} of a reader cannot be {value}: give a number above 0.")
        for name in ("price_in", "price_out", "retries"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise BlindspotError(f"The limit {name} of a reader cannot be {value}: give 0 or more.")
        if self.budget is not None and None in (self.price_in, self.price_out):
            raise BlindspotError("A budget needs the prices of a million tokens: give --price-in and --price-out too.")

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """The money that so many tokens cost; None without prices."""
        if self.price_in is None and self.price_out is None:
            return None
        return (tokens_in * (self.price_in or 0) + tokens_out * (self.price_out or 0)) / MILLION


class Pace:
    """When the next call may be sent; any thread may ask."""

    def __init__(self, per_minute: float | None) -> None:
        self._between = 60 / per_minute if per_minute else 0.0
        self._next = self._held = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Block until it is this call's turn, or `stop` is set."""
        with self._lock:
            at = max(time.monotonic(), self._next)
            self._next = at + self._between
        while (left := max(at, self._held) - time.monotonic()) > 0 and not stop.wait(left):
            pass

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: the endpoint asked for it."""
        with self._lock:
            self._held = max(self._held, time.monotonic() + seconds)


class Purse:
    """What was spent; any thread may ask."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self.spent = self._reserved = 0.0

    def reserve(self, tokens_in: int) -> float | None:
        """Set the expected price of a call aside; None if the budget does not hold it."""
        price = self._limits.price(tokens_in, ANSWER_TOKENS) or 0.0
        with self._lock:
            budget = self._limits.budget
            if budget is not None and self.spent + self._reserved + price > budget:
                return None
            self._reserved += price
        return price

    def settle(self, reserved: float, paid: float) -> None:
        """Replace what was set aside by what was paid."""
        with self._lock:
            self._reserved -= reserved
            self.spent += paid


def backoff(attempt: int) -> float:
    """Seconds before try `attempt` + 1, with some chance so that calls do not come back all at once."""
    return min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)
