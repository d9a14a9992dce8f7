"""`python -m precompute gallery`: drawn images in the atlas, whole and verified, and no drawing made twice."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.schema import LATER, gallery_file
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from engine.samplers.generation import STORED_NAMES, GenerationRequest, generate_images
from precompute import cli, gallery
from precompute.gallery import draw_gallery, interesting
from tests.drawable import build_drawable_atlas
from tests.engine.atlas.test_verify import reseal

ORDER = GenerationRequest(0, count=2, steps=2)


@pytest.fixture(scope="module")
def drawable(tmp_path_factory) -> Path:
    path = build_drawable_atlas(tmp_path_factory.mktemp("gallery"), 24, pairs=6, models=("alpha",))
    reseal(path)
    return path


@pytest.fixture
def path(drawable, tmp_path) -> Path:
    for folder in ("encoder", "prior"):
        (tmp_path / folder).symlink_to(drawable.parent / folder)
    return Path(shutil.copytree(drawable, tmp_path / "atlas"))


def problems(path: Path) -> set[str]:
    return {str(problem) for problem in verify(path)}


def test_the_most_misaligned_live_concepts_come_first(path):
    atlas = Atlas.open(path)
    found, far = interesting(atlas), (atlas.delta("alpha")["delta"] - 0.5).abs()
    assert set(found) == set(np.flatnonzero(~atlas.concepts["dead"]))
    assert far[found].is_monotonic_decreasing


def test_images_and_scores_are_in_the_atlas_and_it_verifies(path):
    before, steps = problems(path), []
    made = draw_gallery(path, ORDER, 3, lambda done, total: steps.append((done, total)))
    atlas = Atlas.open(path)
    rows = atlas.gallery()
    assert problems(path) == before and (made.concepts, made.drawn, made.kept) == (3, 3, 0)
    assert sorted(set(rows["concept"])) == sorted(interesting(atlas)[:3]) and steps == [(0, 6), (2, 6), (4, 6)]
    concept = int(rows["concept"].iloc[0])
    assert list(atlas.gallery(concept)["rank"]) == [0, 1] and rows["reference_score"].gt(0).all()
    assert Image.open(io.BytesIO(atlas.gallery_bytes(concept, 1))).size == (32, 32)
    assert atlas.info.files["gallery/0000/"].rows == 6


def test_every_drawing_can_be_drawn_again_from_the_atlas_alone(path):
    draw_gallery(path, replace(ORDER, strength=0.1, score_cap=0.7, guidance_end=0.9, candidates=3), 1)
    atlas = Atlas.open(path)
    rows = atlas.gallery()
    first = rows.to_dict("records")[0]
    fields = {stored: field for field, stored in STORED_NAMES.items()}
    settings = {fields.get(name, name): first[name] for name in ("method", *gallery.SETTINGS)}
    settings = {name: value for name, value in settings.items() if value == value}
    found = generate_images(atlas, GenerationRequest(first["concept"], count=2, **settings))
    np.testing.assert_array_equal(found.samples.scores.numpy(), rows["score"].to_numpy())


def test_a_gallery_from_before_all_settings_were_kept_is_read_verified_and_added_to(path):
    draw_gallery(path, ORDER, 1)
    old = pq.read_table(path / "gallery.parquet").drop_columns([*LATER["gallery"]])
    where = old.column_names.index("method")
    pq.write_table(old.set_column(where, "method", [["energydps"] * len(old)]), path / "gallery.parquet")
    reseal(path)
    assert set(Atlas.open(path).gallery()["method"]) == {"energy-guidance"}
    atlas = Atlas.open(path)
    assert atlas.gallery()["cap"].isna().all() and not any("gallery" in str(problem) for problem in problems(path))
    draw_gallery(path, replace(ORDER, seed=5), 2)
    assert Atlas.open(path).gallery()["states"].eq(32).all()


def test_a_gallery_by_the_algorithm_as_printed_keeps_its_name(path):
    draw_gallery(path, replace(ORDER, method="energydps"), 1)
    rows = Atlas.open(path).gallery()
    assert set(rows["method"]) == {"energydps"} and set(rows["gradient"]) == {"raw"} and rows["zeta"].isna().all()
    pq.write_table(pq.read_table(path / "gallery.parquet").drop_columns(["gradient", "zeta"]), path / "gallery.parquet")
    reseal(path)
    assert not any("gallery" in str(problem) for problem in problems(path))


def test_a_killed_run_goes_on_where_it_stopped_and_a_second_run_does_nothing(path, monkeypatch):
    real, seen = gallery.generate_images, []

    def stop_at_the_third(atlas, request, *placement, **dtype):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(request.concept)
        return real(atlas, request, *placement, **dtype)

    monkeypatch.setattr(gallery, "generate_images", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        draw_gallery(path, ORDER, 3)
    assert not Atlas.open(path).has("gallery") and len(list(path.parent.glob(".atlas*"))) == 0
    monkeypatch.setattr(gallery, "generate_images", real)
    made = draw_gallery(path, ORDER, 3)
    assert (made.drawn, made.kept) == (1, 2)
    header = (path / "atlas.json").stat()
    assert draw_gallery(path, ORDER, 3).drawn == 0
    assert (path / "atlas.json").stat().st_ino == header.st_ino, "the atlas was written again"


def test_more_concepts_join_and_new_drawings_replace_old_ones(path):
    draw_gallery(path, ORDER, 2)
    first, second = interesting(Atlas.open(path))[:2].tolist()
    old = Atlas.open(path).gallery_bytes(second, 0)
    draw_gallery(path, GenerationRequest(0, count=1, steps=2, seed=7), 1)
    atlas = Atlas.open(path)
    assert list(atlas.gallery(first)["seed"]) == [7] and list(atlas.gallery(second)["seed"]) == [0, 0]
    assert not (path / gallery_file(first, 1)).exists() and atlas.gallery_bytes(second, 0) == old


def test_a_concept_that_cannot_be_drawn_is_skipped_and_named(path, monkeypatch):
    first = int(interesting(Atlas.open(path))[0])
    real = gallery.generate_images

    def refuse(atlas, request, *placement, **dtype):
        if request.concept == first:
            raise BlindspotError("The mean score is out of reach.")
        return real(atlas, request, *placement, **dtype)

    monkeypatch.setattr(gallery, "generate_images", refuse)
    made = draw_gallery(path, ORDER, 2)
    assert made.skipped == {first: "The mean score is out of reach."} and made.concepts == 1
    with pytest.raises(BlindspotError, match="out of reach"):
        draw_gallery(path, ORDER, 1)


def test_a_damaged_atlas_is_not_given_new_checksums(path):
    table = path / "neighbours.parquet"
    table.write_bytes(table.read_bytes() + b"x")
    with pytest.raises(BlindspotError, match=r"neighbours.parquet of .* is not what its header says"):
        draw_gallery(path, ORDER, 1)
    assert not (path / "gallery").exists()


def test_verify_misses_a_drawn_image(path):
    draw_gallery(path, ORDER, 1)
    concept = int(interesting(Atlas.open(path))[0])
    (path / gallery_file(concept, 1)).unlink()
    assert any("1 drawn images are missing" in problem for problem in problems(path))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--concepts", "2", "--all"), "not both"),
        (("--method", "magic"), "There is no sampling method 'magic'"),
        (("--count", "99"), "ask for 1 to 64"),
    ],
)
def test_the_command_says_what_cannot_be_in_one_sentence(path, monkeypatch, capsys, words, sentence):
    monkeypatch.setattr(sys, "argv", ["precompute", "gallery", str(path), *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1 and sentence in capsys.readouterr().err.replace("\n", " ")


def test_the_command_draws_and_prints_one_document(path, monkeypatch, capsys):
    words = ["--concepts", "1", "--count", "1", "--steps", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["precompute", "gallery", str(path), *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    document = json.loads(capsys.readouterr().out)
    assert caught.value.code == 0 and document["concepts"] == document["drawn"] == 1 and document["skipped"] == {}
