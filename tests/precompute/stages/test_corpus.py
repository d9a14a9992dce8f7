"""Folders become lists of usable images; worlds are drawn with their truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from engine.errors import BlindspotError
from engine.files import read_json
from precompute.recipe import Folder, Limits, World
from precompute.stages.corpus import LABELS, draw_world, gather_folder, read_manifest, read_skipped
from tests.precompute.materials import save_images


def quiet(done: int, total: int) -> None:
    return None


def gather(folder: Path, work: Path, **limits: int) -> dict[str, int]:
    work.mkdir(exist_ok=True)
    return gather_folder(Folder(folder=folder), Limits(**limits), work, quiet)


def test_images_are_listed_in_order_with_captions_and_sizes(tmp_path: Path):
    save_images(tmp_path / "images", range(3))
    (tmp_path / "images" / "sub").mkdir()
    Image.new("RGB", (9, 5)).save(tmp_path / "images" / "sub" / "z.jpg")
    assert gather(tmp_path / "images", tmp_path / "work") == {"images": 4, "skipped": 0}
    found = read_manifest(tmp_path / "work")
    assert [picture.stem for picture in found] == ["0000", "0001", "0002", "sub/z"]
    assert found[0].caption == "a red ball number 0" and (found[3].width, found[3].height) == (9, 5)
    assert found[0].path == tmp_path / "images" / "0000.png" and len(found[0].sha256) == 64


def test_unusable_images_are_skipped_counted_and_listed(tmp_path: Path):
    images = save_images(tmp_path / "images", range(2))
    (images / "broken.jpg").write_bytes((images / "0000.png").read_bytes()[:100])
    (images / "text.png").write_text("not an image")
    Image.new("RGB", (100, 100)).save(images / "huge.png")
    assert gather(images, tmp_path / "work", max_pixels=5000) == {"images": 2, "skipped": 3}
    skipped = {one.stem: one.reason for one in read_skipped(tmp_path / "work")}
    assert set(skipped) == {"broken", "text", "huge"}
    assert "cannot be read as an image" in skipped["broken"] and "limit of 5,000" in skipped["huge"]


def test_the_limit_takes_a_random_sample_that_its_seed_repeats(tmp_path: Path):
    save_images(tmp_path / "images", range(12))
    taken = []
    for number, seed in enumerate((0, 0, 1)):
        found = gather(tmp_path / "images", tmp_path / f"work{number}", images=4, seed=seed)
        assert found == {"images": 4, "skipped": 0, "sampled_from": 12}
        taken.append([picture.stem for picture in read_manifest(tmp_path / f"work{number}")])
        assert taken[-1] == sorted(taken[-1])
    assert taken[0] == taken[1] != taken[2] and taken[0] != ["0000", "0001", "0002", "0003"]


def test_of_a_models_folder_the_counterparts_of_the_real_sample_are_taken(tmp_path: Path):
    for name in ("real", "drawn"):
        save_images(tmp_path / name, range(12))
    gather(tmp_path / "real", tmp_path / "a", images=4)
    real, renamed = read_manifest(tmp_path / "a"), tmp_path / "drawn"
    for how in ("stem", "caption"):
        (tmp_path / how).mkdir()
        gather_folder(Folder(folder=renamed), Limits(images=4), tmp_path / how, quiet, real)
        assert [one.caption for one in read_manifest(tmp_path / how)] == [one.caption for one in real]
        rows = [json.loads(line) for line in (renamed / "metadata.jsonl").read_text().splitlines()]
        for row in rows:
            (renamed / row["file_name"]).rename(renamed / f"x{row['file_name']}")
            row["file_name"] = f"x{row['file_name']}"
        (renamed / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_missing_an_empty_and_a_broken_folder_are_said_in_a_sentence(tmp_path: Path):
    with pytest.raises(BlindspotError, match=r"There is no folder .*nowhere"):
        gather(tmp_path / "nowhere", tmp_path / "work")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("x")
    with pytest.raises(BlindspotError, match="has no images; it needs files such as"):
        gather(tmp_path / "empty", tmp_path / "work")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("x")
    with pytest.raises(BlindspotError, match="None of the 1 images"):
        gather(tmp_path / "broken", tmp_path / "work")


def test_a_world_is_drawn_with_captions_and_truth(tmp_path: Path):
    work = tmp_path / "corpus" / "real"
    work.mkdir(parents=True)
    draw_world(World(world="tabletop", count=3, seed=5, size=32), Limits(), work, quiet)
    found, labels = read_manifest(work), read_json(work / LABELS)
    assert [picture.file for picture in found][:2] == [f"corpus/real/images/000000{n}.png" for n in (0, 1)]
    for position, attribute, value in labels:
        assert attribute in ("kind", "colour", "background")
        if attribute != "background":
            assert value in found[position].caption
    assert {position for position, _, _ in labels} == {0, 1, 2}
    first = found[0].path.read_bytes()
    found[0].path.unlink()
    draw_world(World(world="tabletop", count=3, seed=5, size=32), Limits(), work, quiet)
    assert found[0].path.read_bytes() == first
