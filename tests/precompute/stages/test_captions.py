"""Captions are found in every form people keep them in, and a table that cannot be right is said to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import BlindspotError
from precompute.stages.captions import read_captions
from tests.precompute.materials import save_images


@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.csv", "captions.csv", ".txt"])
def test_captions_are_read_in_every_form(tmp_path: Path, form: str):
    save_images(tmp_path, range(3), captions=form)
    found = read_captions(tmp_path, [f"{number:04d}.png" for number in range(3)])
    assert found["0001.png"] == "a green ball number 1" and len(found) == 3


def test_no_captions_is_no_error(tmp_path: Path):
    save_images(tmp_path, range(2), captions=None)
    assert read_captions(tmp_path, ["0000.png", "0001.png"]) == {}


@pytest.mark.parametrize("column", ["caption", "prompt", "Text"])
def test_other_column_names_are_understood(tmp_path: Path, column: str):
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "{column}": " two   words "}}\n')
    assert read_captions(tmp_path, ["a.png"]) == {"a.png": "two words"}


def test_files_in_subfolders_and_several_captions(tmp_path: Path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "./cats/a.png", "captions": ["first", "second"]}\n')
    assert read_captions(tmp_path, ["cats/a.png"]) == {"cats/a.png": "first"}


def test_images_without_a_caption_are_left_out(tmp_path: Path):
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "x"}\n{"file_name": "b.png", "text": null}\n'
    )
    assert read_captions(tmp_path, ["a.png", "b.png", "c.png"]) == {"a.png": "x"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.jsonl", "not json\n", "line 1 is not a JSON object"),
        ("metadata.jsonl", '{"file_name": "a.png", "label": 3}\n', "columns file_name, label, but needs one of text"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": 3}\n', "line 1 must give 'file_name' and 'text' as text"),
        ("metadata.jsonl", '{"file_name": "z.png", "text": "x"}\n', "names 1 files, but none of the 1 images"),
        ("captions.csv", "image;caption\n", None),
        ("captions.csv", "picture,caption\na.png,x\n", "needs one of file_name"),
        ("metadata.jsonl", "\xff\xfe", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_right_is_said_in_a_sentence(tmp_path: Path, name: str, text: str, words: str | None):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    if words is None:
        assert read_captions(tmp_path, ["a.png"]) == {}
        return
    with pytest.raises(BlindspotError) as caught:
        read_captions(tmp_path, ["a.png"])
    assert words in str(caught.value)
