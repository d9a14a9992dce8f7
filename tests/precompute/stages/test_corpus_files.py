"""Files of a folder are images or are listed with the reason, whatever they are called and wherever they lie."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import BlindspotError
from engine.files import content_hash, read_json, visible_files, write_json
from precompute.recipe import Folder, Limits
from precompute.stages.corpus import ImageRecord, gather_folder, read_manifest, read_skipped
from precompute.stages.pairing import pair

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def gather(folder: Path, work: Path) -> dict[str, int]:
    work.mkdir(exist_ok=True)
    return gather_folder(Folder(folder=folder), Limits(), work, lambda done, total: None)


def picture(path: Path) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (8, 8), "red").save(path, "PNG")


def test_every_file_is_read_or_listed(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a.png", "noextension", "b.jpe", "c.large"):
        picture(images / name)
    (images / "d.HEIC").write_bytes(HEIC)
    (images / "e.jxl").write_bytes(b"\xff\x0a" + bytes(50))
    (images / "f.NEF").write_bytes(b"MM\0*" + bytes(50))
    (images / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (images / "notes").write_text("not an image")
    os.mkfifo(images / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(images / "socket.jpg"))
        assert gather(images, tmp_path / "work") == {"images": 4, "skipped": 6}
    assert {one.stem: one.kind for one in read_skipped(tmp_path / "work")} == {
        "d": "HEIC not read",
        "e": "JXL not read",
        "f": "a camera's raw file not read",
        "gone": "cannot be opened: No such file or directory",
        "pipe": "a pipe, socket or device",
        "socket": "a pipe, socket or device",
    }
    assert len(content_hash(images)) == 64


def test_only_heic_is_a_sentence_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.heic").write_bytes(HEIC)
    with pytest.raises(BlindspotError, match="HEIC"):
        gather(tmp_path / "images", tmp_path / "work")


def test_links_to_folders_are_followed_once_and_circles_end(tmp_path: Path) -> None:
    images = tmp_path / "images"
    picture(images / "own" / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "elsewhere" / "back").symlink_to(images)
    (images / "again").symlink_to(images / "own")
    (images / "circle").symlink_to(images)
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    (images / "twice").symlink_to(tmp_path / "elsewhere")
    (images / "top").symlink_to("/")
    (images / "system").symlink_to("/proc/self")
    left_out: dict[str, str] = {}
    assert sorted(visible_files(images, left_out)) == ["linked/b.png", "own/a.png"]
    assert set(left_out) == {"again", "circle", "linked/back", "twice", "top", "system"}


def test_names_that_are_not_utf8_are_kept_and_can_be_written(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in (b"caf\xe9.png", b"\xff\xfe.png"):
        picture(images / os.fsdecode(name))
    (images / os.fsdecode(b"bad\xe9.png")).write_bytes(b"x")
    (images / os.fsdecode(b"caf\xe9.txt")).write_text("a caption")
    assert gather(images, tmp_path / "work") == {"images": 2, "skipped": 1}
    found = read_manifest(tmp_path / "work")
    assert all(image.path.is_file() for image in found) and found[0].caption == "a caption"
    for text in (*(image.file for image in found), *(one.reason for one in read_skipped(tmp_path / "work"))):
        text.encode("utf-8")


@given(st.text(st.characters()))
def test_json_keeps_any_name(text: str) -> None:
    with TemporaryDirectory() as folder:
        write_json(Path(folder, "a.json"), text)
        (Path(folder) / "a.json").read_bytes().decode("utf-8")
        if not any("\ud800" <= one <= "\udbff" and "\udc00" <= two <= "\udfff" for one, two in zip(text, text[1:])):  # noqa: B905, RUF007
            assert read_json(Path(folder, "a.json")) == text


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(categories=["L", "Mn"]), min_size=1), min_size=1, max_size=6))
def test_names_and_captions_pair_in_any_form(words: list[str]) -> None:
    from unicodedata import normalize

    unique = list(dict.fromkeys(normalize("NFC", word) for word in words))
    sides = [[normalize(form, word) for word in unique] for form in ("NFC", "NFD")]
    real, model = ([ImageRecord(Path(word), word, word, word, 8, 8, "") for word in side] for side in sides)
    for how in ("stem", "caption", "auto"):
        assert pair(real, model, how, "m").pair_index.tolist() == list(range(len(unique)))
