"""Lets a model reader rate a study by the same protocol as people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.errors import BlindspotError
from engine.ratings.store import RatingStudy
from engine.readers.base import Answer, Plan, Question, Reader, Status


class Asked(NamedTuple):
    """A question and the item that it is about."""

    token: str
    question: Question


@dataclass(frozen=True)
class ReaderRatings:
    """What came of asking a reader."""

    reader: str
    rated: int
    """Items rated by this run."""
    kept: int
    """Items that the reader had rated before."""
    missing: dict[str, int]
    """How many answers were refused, malformed, failed, or no answer of the protocol."""


def questions_for(study: RatingStudy, reader: str) -> list[Asked]:
    """Return what a reader is still to be asked of a study."""
    done, asked = study.rated(reader), []
    for token in study.order(reader):
        if token not in done:
            content, protocol = study.show(token, reader).content, study.protocol
            question = Question(
                protocol.versioned, protocol.prompt(content), (study.image(token),), protocol.schema(content)
            )
            asked.append(Asked(token, question))
    return asked


def plan_ratings(study: RatingStudy, reader: Reader) -> Plan:
    """Return what asking a reader would take; sends nothing."""
    return reader.plan([one.question for one in questions_for(study, reader.name)])


def rate_with_reader(
    study: RatingStudy, reader: Reader, progress: Callable[[int, int], None] | None = None
) -> ReaderRatings:
    """Ask a reader about every item that it has not rated, and store each answer as it comes.

    Refusals and malformed answers are counted, never fatal; a later run asks for them again if the reader does.

    Raises
    ------
    BlindspotError
        If the study has ended, or the reader cannot answer at all.
    """
    if study.ended:
        raise BlindspotError(f"The study {study.name} has ended: nothing is rated any more.")
    asked, kept = questions_for(study, reader.name), len(study.rated(reader.name))
    counts: Counter[str] = Counter()

    def store(place: int, answer: Answer) -> None:
        token = asked[place].token
        if answer.status != Status.ANSWERED or answer.value is None:
            counts[str(answer.status.value)] += 1
        else:
            try:
                rating = study.protocol.read(answer.value, study.show(token, reader.name).content)
                study.rate(reader.name, token, rating.value, rating.note, kind="reader")
                counts["rated"] += 1
            except BlindspotError as error:
                if study.ended:
                    raise
                counts[f"no rating: {error}"] += 1
        if progress:
            progress(counts.total(), len(asked))

    reader.ask([one.question for one in asked], store)
    rated = counts.pop("rated", 0)
    return ReaderRatings(reader.name, rated, kept, dict(counts))
