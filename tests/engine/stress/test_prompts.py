"""Prompts come from captions, from their grammar, from a file, or from a reader; all say what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.readers.base import Answer, Question, Status
from engine.stress.prompts import caption_prompts, grammar_prompts, names, read_prompts, reader_prompts, word_of
from tests.app.conftest import DEMO

CAPTIONS = ["a red disc on grass", "a disc on paper", "a blue palm tree on paper", "a red palm tree on ice", "a tree"]


def test_a_caption_names_a_word_as_a_whole_and_in_the_plural():
    assert names("Two Discs on grass", "disc") and names("a palm\ttree", "palm tree")
    assert not names("a discount", "disc") and not names("a palm", "palm tree") and names("赤い円盤です", "円盤")


def test_the_grammar_puts_the_word_where_another_label_stood_between_the_same_words():
    assert grammar_prompts(CAPTIONS, "disc", {"palm tree", "tree", "disc", "cup"}) == ["a red disc on ice"]
    assert grammar_prompts(CAPTIONS, "disc", {"cup"}) == []


def test_the_demos_discs_and_bird_feeders_have_fifty_captions_each_the_shortest_first():
    atlas = Atlas.open(DEMO)
    for concept, word in ((78, "disc"), (403, "bird feeder")):
        found = caption_prompts(atlas, concept, word_of(atlas, concept))
        assert found.word == word and len(set(found.prompts)) == 50 and found.origin == "captions"
        assert all(names(prompt, word) for prompt in found.prompts)
        lengths = [len(prompt.split()) for prompt in found.prompts]
        assert lengths == sorted(lengths) and found == caption_prompts(atlas, concept, word)
    more = caption_prompts(atlas, 78, "disc", count=200)
    assert len(more.prompts) == 200 and "grammar" in more.origin and all(names(one, "disc") for one in more.prompts)
    with pytest.raises(BlindspotError, match="There is no concept 999"):
        word_of(atlas, 999)


def test_a_file_holds_lines_a_list_or_lists_by_concept(tmp_path: Path):
    (lines := tmp_path / "a.txt").write_text("a disc\n\n a  disc \nb disc\n", encoding="utf-8")
    assert read_prompts(lines, [3]) == {3: ("a disc", "b disc")}
    (named := tmp_path / "b.json").write_text(json.dumps({"3": ["x"], "4": ["y", "<b>z</b>"]}))
    assert read_prompts(named, [3, 4]) == {3: ("x",), 4: ("y", "<b>z</b>")}
    for text, why in (('{"3": [1]}', "holds no prompts for concept 3"), ("{", "cannot be read"), ("[]", "no prompts")):
        named.write_text(text)
        with pytest.raises(BlindspotError, match=why):
            read_prompts(named, [3])


class Suggesting:
    """A reader that answers what it is given."""

    name = "suggesting"

    def __init__(self, status: Status, value: dict | None) -> None:
        self.answer = Answer(status, value, self.name, "It will not.", False, 1, 1)
        self.asked: list[Question] = []

    def ask(self, questions, on_answer=None):
        self.asked += questions
        return [self.answer for _ in questions]


def test_a_reader_is_asked_once_for_each_word_and_a_refusal_is_said():
    reader = Suggesting(Status.ANSWERED, {"prompts": ["a disc", "a disc", 5, "b disc"]})
    found = reader_prompts(reader, {1: "disc", 2: "disc"}, 50)
    assert [one.prompts for one in found] == [("a disc", "b disc")] * 2 and len(reader.asked) == 1
    assert '"disc". Suggest 50 prompts' in reader.asked[0].text and found[0].origin == "suggesting"
    with pytest.raises(BlindspotError, match="suggests no prompts for 'disc'"):
        reader_prompts(Suggesting(Status.REFUSED, None), {1: "disc"})
