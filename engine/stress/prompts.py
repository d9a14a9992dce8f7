"""Prompts that ask for a concept: from the captions of the atlas, from a file, or from a reader.

Captions that name the concept are prompts already. Where they are too few, further ones are made of the captions'
own grammar: in captions that do not name it, the label of another concept is replaced that stands between the same
two words.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import BlindspotError

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.readers.base import Reader

PROMPTS = 50
"""Prompts of a concept, as in the paper."""
LONGEST = 1000
"""Characters of a prompt."""
MOST = 500
CAPTIONS, GRAMMAR = "captions", "captions and their grammar"
PROTOCOL = "stress-prompts/1"
ASK = (
    'I want to generate an image of the following concept: "{word}". Suggest {count} prompts highlighting this concept '
    "to be used as input for a text-to-image model. Each prompt names the concept."
)
"""What a reader is asked (paper's appendix G.2; the answer is JSON instead of a list in Python)."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"prompts": {"type": "array", "items": {"type": "string"}}},
    "required": ["prompts"],
    "additionalProperties": False,
}
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Characters of scripts without spaces between words."""


class PromptSet(NamedTuple):
    """What models are asked for one concept."""

    concept: int
    word: str
    """What prompts and captions call it."""
    prompts: tuple[str, ...]
    origin: str
    """`CAPTIONS`, `GRAMMAR`, `file` or the reader's name."""


def names(text: str, word: str) -> bool:
    """Whether a caption has a word, or its plural in s or es, whatever the case."""
    return bool(_pattern(word).search(text))


def _pattern(word: str) -> re.Pattern[str]:
    inside = r"\s+".join(map(re.escape, word.split()))
    if UNSPACED.search(word):
        return re.compile(inside)
    return re.compile(rf"(?<![^\W_]){inside}(?:s|es)?(?![^\W_])", re.IGNORECASE)


def word_of(atlas: Atlas, concept: int, word: str | None = None) -> str:
    """What captions call a concept: the term of its label, else of its words, that most real captions have.

    Raises
    ------
    BlindspotError
        If no caption of a real image has one, or the atlas has no such concept.
    """
    if not 0 <= concept < atlas.count:
        raise BlindspotError(f"There is no concept {concept} in this atlas: they go from 0 to {atlas.count - 1}.")
    captions = real_captions(atlas)
    if word is not None:
        if not word.strip():
            raise BlindspotError("--word is empty: give what captions call the concept.")
        return " ".join(word.split())
    row = atlas.concepts.loc[concept]
    terms = [part.strip() for part in str(row["label"] or "").split(",")]
    for group in (terms[:1], terms[1:], list(row["words"] if row["words"] is not None else ())):
        found = {term: sum(names(caption, term) for caption in captions) for term in group if term}
        if (best := max(found, key=found.__getitem__, default=None)) and found[best]:
            return best
    raise BlindspotError(
        f"No caption of a real image names concept {concept} ({str(row['label'])[:60]}): say by --word what captions "
        "call it."
    )


def real_captions(atlas: Atlas) -> list[str]:
    """The captions of the real images, empty ones too, in the order of the images."""
    images = atlas.images
    return images["caption"][images["source"] == "real"].fillna("").tolist()


def caption_prompts(atlas: Atlas, concept: int, word: str, count: int = PROMPTS, seed: int = 0) -> PromptSet:
    """Prompts from the captions of the real images, the shortest first: they say least besides the concept.

    Raises
    ------
    BlindspotError
        If no caption names the concept.
    """
    captions = list(dict.fromkeys(" ".join(text.split()) for text in real_captions(atlas) if text.strip()))
    own = _shuffled([caption for caption in captions if names(caption, word)], seed)
    if not own:
        raise BlindspotError(f"No caption of a real image names {word!r}: give --prompts FILE, or another --word.")
    if len(own) >= count:
        return PromptSet(concept, word, tuple(own[:count]), CAPTIONS)
    labels = {part.strip() for label in atlas.concepts["label"].fillna("") for part in str(label).split(",")}
    made = [prompt for prompt in grammar_prompts(captions, word, labels - {""}, seed) if prompt not in own]
    chosen = own + made[: count - len(own)]
    return PromptSet(concept, word, tuple(chosen), GRAMMAR if made else CAPTIONS)


def grammar_prompts(captions: Sequence[str], word: str, labels: set[str], seed: int = 0) -> list[str]:
    """Captions without `word` in which it takes the place of a label that stands between the same neighbours."""
    slots = {slot for caption in captions for slot in _slots(caption, word)}
    by_length = sorted(labels - {word}, key=lambda label: (-len(label), label))
    made: dict[str, None] = {}
    for caption in captions:
        if names(caption, word):
            continue
        # The longest label first: a "palm tree" is no tree.
        label = next((label for label in by_length if slots & set(_slots(caption, label))), None)
        if label is not None:
            made[_pattern(label).sub(lambda _: word, caption, count=1)] = None
    return _shuffled([prompt for prompt in made if names(prompt, word)], seed)


def _slots(caption: str, word: str) -> list[tuple[str, str]]:
    """The words before and after each place of a word in a caption; empty at its ends."""
    found = []
    for match in _pattern(word).finditer(caption):
        before, after = caption[: match.start()].split()[-1:], caption[match.end() :].split()[:1]
        found.append(("".join(before).lower(), "".join(after).lower()))
    return found


def _shuffled(prompts: list[str], seed: int) -> list[str]:
    """Shortest first by their words, those of equal length in an order that depends on the seed alone."""
    mixed = sorted(prompts)
    random.Random(seed).shuffle(mixed)
    return sorted(mixed, key=lambda prompt: len(prompt.split()))


def read_prompts(file: Path, concepts: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Read prompts from a file: one a line, a JSON list of them, or a JSON object of such lists by concept.

    Raises
    ------
    BlindspotError
        If it cannot be read, or has none for one of the concepts.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        document = json.loads(text) if file.suffix.lower() == ".json" else text.splitlines()
    except OSError as error:
        raise BlindspotError(f"The prompts in {file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise BlindspotError(f"The prompts in {file} cannot be read: {' '.join(str(error).split())}.") from error
    lists = document if isinstance(document, Mapping) else {str(concept): document for concept in concepts}
    found = {}
    for concept in concepts:
        given = lists.get(str(concept))
        if not isinstance(given, list) or not all(isinstance(prompt, str) for prompt in given):
            raise BlindspotError(
                f"{file} holds no prompts for concept {concept}: give one a line, or a JSON list of texts, or an "
                "object of such lists by concept."
            )
        found[concept] = cleaned(given)
        if not found[concept]:
            raise BlindspotError(f"{file} holds no prompts for concept {concept}: write one a line.")
    return found


def cleaned(prompts: Sequence[str]) -> tuple[str, ...]:
    """Prompts on one line each, without doubles and empty ones, none longer than `LONGEST`, at most `MOST`."""
    lines = (" ".join(prompt.split())[:LONGEST] for prompt in prompts)
    return tuple(dict.fromkeys(line for line in lines if line))[:MOST]


def reader_prompts(reader: Reader, words: Mapping[int, str], count: int = PROMPTS) -> list[PromptSet]:
    """Prompts that a reader suggests, one question for each word.

    Raises
    ------
    BlindspotError
        If it does not answer one, or suggests no prompt.
    """
    from engine.readers.base import Question

    different = list(dict.fromkeys(words.values()))
    questions = [Question(PROTOCOL, ASK.format(word=word, count=count), (), SCHEMA) for word in different]
    suggested = {}
    for word, answer in zip(different, reader.ask(questions), strict=True):
        found = (answer.value or {}).get("prompts", [])
        prompts = cleaned([one for one in found if isinstance(one, str)] if isinstance(found, list) else [])[:count]
        if not prompts:
            why = answer.reason or str(answer.status)
            raise BlindspotError(f"{reader.name} suggests no prompts for {word!r} ({why}): give --prompts FILE.")
        suggested[word] = prompts
    return [PromptSet(concept, word, suggested[word], reader.name) for concept, word in words.items()]
