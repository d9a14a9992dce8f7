"""Captions are found in every layout and encoding; what is not read is listed."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.stages.captions import decode, find_captions

ROWS = [{"file_name": "a.png", "text": "a café"}, {"file_name": "b.png", "text": "two dogs"}]
IMAGES = ["a.png", "b.png"]
FOUND = {"a.png": "a café", "b.png": "two dogs"}


def write(folder: Path, name: str, rows: list[dict[str, str]], encoding: str = "utf-8") -> None:
    folder.mkdir(exist_ok=True)
    path, table = folder / name, pd.DataFrame(rows)
    match path.suffix:
        case ".parquet":
            table.to_parquet(path)
        case ".csv":
            path.write_text(table.to_csv(index=False), encoding=encoding)
        case ".tsv":
            path.write_text(table.to_csv(index=False, sep="\t"), encoding=encoding)
        case ".json":
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding=encoding)
        case _:
            path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding=encoding)


@pytest.mark.parametrize("stem", ["metadata", "captions"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json", "tsv"])
@pytest.mark.parametrize("below", ["", "train"])
def test_tables_are_read_in_every_folder(tmp_path: Path, stem: str, kind: str, below: str) -> None:
    write(tmp_path / below, f"{stem}.{kind}", ROWS)
    images = [f"{below}/{name}".lstrip("/") for name in IMAGES]
    assert find_captions(tmp_path, images) == (dict(zip(images, FOUND.values(), strict=True)), [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "txt", "caption"])
def test_every_encoding_is_read(tmp_path: Path, encoding: str, kind: str) -> None:
    if kind in ("txt", "caption"):
        for row in ROWS:
            (tmp_path / row["file_name"]).with_suffix(f".{kind}").write_text(row["text"], encoding=encoding)
    else:
        write(tmp_path, f"metadata.{kind}", ROWS, encoding)
    found = find_captions(tmp_path, IMAGES)
    if encoding == "utf-32":  # pandas and editors write its mark
        assert found.texts == FOUND
    else:
        assert found.texts == FOUND and len(found.unread) == (encoding == "cp1252")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_marked_text_comes_back(text: str) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert decode(text.encode(encoding)) == (text, "")


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(categories=["L", "Mn", "Nd"]), min_size=1, max_size=20), st.sampled_from(["NFC", "NFD"]))
def test_names_are_compared_in_nfc(stem: str, form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    with TemporaryDirectory() as folder:
        row = {"file_name": normalize(other, f"{stem}.png"), "text": "x"}
        Path(folder, "metadata.jsonl").write_text(json.dumps(row))
        name = normalize(form, f"{stem}.png")
        assert find_captions(Path(folder), [name]).texts == {name: "x"}


def test_rows_without_text_come_first_and_broken_ones_are_listed_once(tmp_path: Path) -> None:
    rows = ['{"file_name": "c.png"}', *map(json.dumps, ROWS), "broken", "[1]", '{"file_name": "c.png", "text": 5}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    found = find_captions(tmp_path, [*IMAGES, "c.png"])
    assert found.texts == FOUND
    assert len(found.unread) == 2 and "line 4 is not a JSON object" in found.unread[0].reason
    assert "and so are 1 more" in found.unread[0].reason and "must give 'file_name'" in found.unread[1].reason


@pytest.mark.parametrize(
    "document",
    [
        {"a.png": "a café", "b.png": "two dogs"},
        {"a": {"caption": "a café"}, "b": {"caption": "two dogs"}},
        {"data": ROWS},
        {
            "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
            "annotations": [{"image_id": 1, "caption": "a café"}, {"image_id": 2, "caption": "two dogs"}],
        },
        {"images": [{"filename": row["file_name"], "sentences": [{"raw": row["text"]}]} for row in ROWS]},
    ],
)
def test_json_layouts(tmp_path: Path, document: dict) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps(document))
    assert find_captions(tmp_path, IMAGES).texts == FOUND


def test_other_file_columns_and_semicolons(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("edited_file_name;blip_caption\na.png;a café\nb.png;two dogs\n")
    assert find_captions(tmp_path, IMAGES).texts == FOUND


def test_a_table_that_fails_gives_way_to_the_next_and_to_files_beside(tmp_path: Path) -> None:
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "captions.csv").write_text("file,caption\na.png,a café\n")
    (tmp_path / "b.png.caption").write_text("two dogs")
    found = find_captions(tmp_path, IMAGES)
    assert found.texts == FOUND and "metadata.parquet cannot be read" in found.unread[0].reason


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["jsonl", "csv", "json", "parquet", "tsv"]))
def test_any_bytes_are_a_result_or_a_reason(data: bytes, kind: str) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, f"metadata.{kind}").write_bytes(data)
        find_captions(Path(folder), ["a.png"])


def test_lone_surrogates_become_text(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "odd \\ud800 text"}')
    find_captions(tmp_path, ["a.png"]).texts["a.png"].encode("utf-8")
