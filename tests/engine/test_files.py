"""Files are whole or absent, folders are known by their contents, a full disk is one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BlindspotError
from engine.files import (
    KnownHashes,
    content_hash,
    file_hash,
    full_disk_explained,
    known_hashes,
    plain,
    read_json,
    write_array,
    write_json,
    write_whole,
)


@pytest.fixture(autouse=True)
def forget_hashes():
    content_hash.cache_clear()


def folder_hash(folder: Path) -> str:
    content_hash.cache_clear()
    return content_hash(folder)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    write_whole(tmp_path / "a", lambda partial: partial.write_text("old"))

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "a", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


def test_an_array_comes_back(tmp_path: Path):
    write_array(tmp_path / "deep" / "a.npy", np.arange(5))
    assert np.load(tmp_path / "deep" / "a.npy").tolist() == [0, 1, 2, 3, 4]


def test_a_folder_is_known_by_names_and_contents_and_not_by_times(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("one")
    (tmp_path / "sub" / "b").write_text("two")
    before = folder_hash(tmp_path)
    (tmp_path / "a").write_text("one")
    (tmp_path / ".hidden").write_text("x")
    assert folder_hash(tmp_path) == before
    (tmp_path / "a").write_text("eno")
    changed = folder_hash(tmp_path)
    (tmp_path / "a").write_text("one")
    (tmp_path / "a").rename(tmp_path / "c")
    assert len({before, changed, folder_hash(tmp_path)}) == 3


def test_a_full_device_is_one_sentence(tmp_path: Path):
    full = pytest.raises(BlindspotError, match=r"^The disk is full while writing to .*; free some space")
    with full, full_disk_explained(tmp_path), open("/dev/full", "w") as device:
        device.write("x")


def test_a_full_disk_is_known_by_a_librarys_words(tmp_path: Path):
    with pytest.raises(BlindspotError, match="disk is full"), full_disk_explained(tmp_path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_other_failures_pass(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), full_disk_explained(tmp_path):
        1 / 0


NUMBERS = st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3))
DOCUMENTS = st.recursive(
    NUMBERS,
    lambda part: st.lists(part) | st.dictionaries(st.text(max_size=3), part) | st.tuples(part, part),
    max_leaves=8,
)


@given(DOCUMENTS)
def test_a_document_never_holds_what_json_cannot_say(document):
    text = json.dumps(plain(document), allow_nan=False)
    assert plain(json.loads(text)) == json.loads(text)


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": (np.float64("-inf"),)})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [1.5, None], "c": [None]}


def test_known_hashes_spare_the_reading_but_see_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, cache = tmp_path / "images", tmp_path / "hashes.json"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"content {number}")
    before = folder_hash(folder)
    read: list[str] = []
    monkeypatch.setattr("engine.files.file_hash", lambda path, hash=file_hash: read.append(path.name) or hash(path))
    monkeypatch.setattr(KnownHashes, "FRESH", -1.0)

    def again() -> str:
        read.clear()
        with known_hashes(cache):
            return folder_hash(folder)

    assert again() == before and len(read) == 3
    assert again() == before and read == []
    stamp = os.stat(folder / "1.txt")
    (folder / "1.txt").write_text("CONTENT 1")  # as long as before, and its time set back
    os.utime(folder / "1.txt", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert again() != before and read == ["1.txt"]
    cache.write_text("[]")
    assert again() != before and len(read) == 3
    monkeypatch.setattr(KnownHashes, "FRESH", 1e9)
    cache.unlink()
    assert again() == again() and len(read) == 3  # a file that may still be changing is read each time
