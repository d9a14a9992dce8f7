"""Asks a model many questions: within limits, several at once, again after failures, and none that is kept already."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import NamedTuple, Protocol

from engine.readers.base import (
    REFUSALS,
    Answer,
    Plan,
    Question,
    Status,
    clean_text,
    estimated_tokens,
    parse_answer,
    question_key,
)
from engine.readers.cache import AnswerCache
from engine.readers.limits import ANSWER_TOKENS, LONGEST_HOLD, Limits, Pace, Purse, backoff

GIVE_UP = 3
"""Questions in a row for which the endpoint could not be reached at all, after which no more are sent."""
LOST = (
    "It was under way when an earlier run was killed and may have been paid: ask again only if that is fine (--again)."
)


class Reply(NamedTuple):
    """What a model sent back for one call."""

    text: str
    refusal: str | None = None
    cut: bool = False
    """Whether the answer ended at the limit of its tokens."""
    tokens_in: int | None = None
    tokens_out: int | None = None


class CallFailed(Exception):
    """A call without an answer."""

    def __init__(
        self, reason: str, *, retry: bool = True, after: float | None = None, paid: bool = False, reached: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry = reason, retry
        self.after = after
        """Seconds that the endpoint asked to wait."""
        self.paid = paid
        """Whether it may have been paid all the same."""
        self.reached = reached
        """Whether the endpoint replied at all."""


class Backend(Protocol):
    """A model that takes one question at a time, from any thread."""

    name: str

    def call(self, question: Question) -> Reply:
        """Send one question; raises `CallFailed`, or `BlindspotError` when no question can succeed."""


class LimitedReader:
    """A reader (`engine.readers.base.Reader`) that asks a model within limits and keeps what it pays for.

    Attributes
    ----------
    name : of the model; part of the cache's key.
    limits : see `Limits`.
    purse : `purse.spent` is what this reader has paid so far, 0 without prices.
    """

    def __init__(self, backend: Backend, cache: AnswerCache, limits: Limits) -> None:
        self.name, self.limits, self.purse = backend.name, limits, Purse(limits)
        self._backend, self._cache, self._pace = backend, cache, Pace(limits.per_minute)
        self._unreached = 0

    def known(self, question: Question) -> Answer | None:
        """The answer that an earlier run was given, or None."""
        return self._cache.get(question_key(self.name, question))

    def plan(self, questions: Sequence[Question]) -> Plan:
        """Count the calls, tokens and money that asking would take; sends nothing."""
        distinct = {question_key(self.name, question): question for question in questions}
        known = {key: self._known(key) for key in distinct}
        lost = sum(answer is not None and not answer.cached for answer in known.values())
        due = [question for key, question in distinct.items() if known[key] is None]
        tokens_in, tokens_out = sum(map(estimated_tokens, due)), ANSWER_TOKENS * len(due)
        price = self.limits.price(tokens_in, tokens_out)
        return Plan(len(due), len(distinct) - len(due) - lost, lost, tokens_in, tokens_out, price)

    def ask(
        self, questions: Sequence[Question], on_answer: Callable[[int, Answer], None] | None = None
    ) -> list[Answer]:
        """Answer every question; what cannot be answered says so in its `Answer` and is never fatal.

        Parameters
        ----------
        questions
            Equal ones are asked once.
        on_answer
            Called from this thread with the position and the answer, as they come.

        Raises
        ------
        BlindspotError
            If no question can succeed (no such model, wrong key), or another run is asking.
        """
        found: dict[int, Answer] = {}
        places: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(question_key(self.name, question), []).append(place)

        def settle(key: str, answer: Answer) -> None:
            for number, place in enumerate(places[key]):
                free = number > 0 and answer.status != Status.FAILED
                found[place] = replace(answer, cached=True) if free else answer
                if on_answer:
                    on_answer(place, found[place])

        with self._cache.held():
            due = []
            for key in places:
                known = self._known(key)
                if known is None:
                    due.append(key)
                else:
                    settle(key, known)
            self._send({key: questions[places[key][0]] for key in due}, settle)
        return [found[place] for place in range(len(questions))]

    def _known(self, key: str) -> Answer | None:
        """What needs no call: the answer that is kept, or that the call was lost."""
        known = self._cache.get(key)
        if known is not None and (known.status == Status.ANSWERED or not self.limits.again):
            return known
        if known is None and not self.limits.again and self._cache.lost(key):
            return self._missing(LOST)
        return None

    def _send(self, due: dict[str, Question], settle: Callable[[str, Answer], None]) -> None:
        """Ask them all; a stop or an error waits for the calls under way, whose answers are kept."""
        stop = threading.Event()
        with ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="reader") as pool:
            calls = {pool.submit(self._answer, key, question, stop): key for key, question in due.items()}
            try:
                for call in as_completed(calls):
                    settle(calls[call], call.result())
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _answer(self, key: str, question: Question, stop: threading.Event) -> Answer:
        """One question's answer, after as many tries as are allowed."""
        tokens = estimated_tokens(question)
        for attempt in range(self.limits.retries + 1):
            if stop.is_set():
                return self._missing("The run was stopped before it was asked.")
            if self._unreached >= GIVE_UP:
                return self._missing("The endpoint cannot be reached.")
            reserved = self.purse.reserve(tokens)
            if reserved is None:
                return self._missing(f"The budget of {self.limits.budget:g} is reached.")
            self._pace.wait(stop)
            if stop.is_set():
                self.purse.settle(reserved, 0.0)
                continue
            self._cache.note(key)
            try:
                reply = self._backend.call(question)
            except CallFailed as failed:
                self.purse.settle(reserved, reserved if failed.paid else 0.0)
                last = attempt == self.limits.retries or not failed.retry or (failed.after or 0) > LONGEST_HOLD
                if last or not failed.paid:
                    self._cache.unnote(key)
                if last:
                    self._unreached = 0 if failed.reached else self._unreached + 1
                    return self._missing(failed.reason)
                if failed.after is not None:
                    self._pace.hold(failed.after)
                else:
                    stop.wait(backoff(attempt))
                continue
            except Exception:
                self.purse.settle(reserved, 0.0)
                self._cache.unnote(key)
                raise
            self._unreached = 0
            answer = self._judged(question, reply, tokens)
            self.purse.settle(reserved, self.limits.price(answer.tokens_in, answer.tokens_out) or 0.0)
            self._cache.put(key, question.protocol, answer)
            return answer
        return self._missing("The run was stopped before it was asked.")

    def _judged(self, question: Question, reply: Reply, tokens: int) -> Answer:
        """Whether a reply is an answer, a refusal, or neither."""
        used = (
            tokens if reply.tokens_in is None else reply.tokens_in,
            len(reply.text) // 4 if reply.tokens_out is None else reply.tokens_out,
        )
        if reply.refusal is not None:
            return Answer(Status.REFUSED, None, self.name, clean_text(reply.refusal, 200), False, *used)
        try:
            return Answer(Status.ANSWERED, parse_answer(reply.text, question.schema), self.name, None, False, *used)
        except ValueError as error:
            status = Status.REFUSED if REFUSALS.match(reply.text) else Status.MALFORMED
            reason = f"The answer was cut off at {self.limits.max_tokens} tokens." if reply.cut else str(error)
            return Answer(status, None, self.name, reason, False, *used)

    def _missing(self, reason: str) -> Answer:
        return Answer(Status.FAILED, None, self.name, clean_text(reason, 300), False, 0, 0)
