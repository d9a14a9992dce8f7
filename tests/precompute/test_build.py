"""A recipe becomes an atlas that verifies and opens; a second run does nothing; each bad input is one sentence."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.atlas.reader import Atlas
from engine.atlas.schema import priors_of
from engine.atlas.verify import verify
from engine.atlas.writer import write_concept_labels
from engine.errors import BlindspotError
from precompute.build import build
from precompute.console import print_summary
from precompute.recipe import load_recipe
from precompute.runner import Build
from tests.precompute.materials import save_images, save_recipe

STAGES = ("generate", "pairing", "encode", "energies", "thumbs", "composition", "metrics")
DRAWN = {f"{stage}/drawn" for stage in STAGES}
DIVERGENCE = {f"divergence/{name}" for name in ("paired", "alien", "drawn")}


def run(recipe: Path, out: Path, *settings: str) -> Build:
    return build(load_recipe(recipe, settings), out, lambda stage: lambda done, total: None)


def ran(made: Build) -> set[str]:
    return {outcome.name for outcome in made.outcomes if outcome.action != "kept"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path, pipeline_folder: Path) -> Path:
    """Real images, one of them broken; a folder that pairs, one that does not; a recipe with all and a pipeline."""
    base = tmp_path_factory.mktemp("inputs")
    save_images(base / "real", range(12))
    (base / "real" / "broken.png").write_text("not an image")
    save_images(base / "paired", range(12), shift=1)
    save_images(base / "alien", range(100, 106), captions=None)
    save_recipe(
        base / "r.yaml",
        real={"folder": "real", "label": "Photographs"},
        models={
            "paired": "paired",
            "alien": "alien",
            "drawn": {"pipeline": str(pipeline_folder), "steps": 2, "batch": 8, "label": "Drawn"},
        },
        encoder={"id": str(encoder_folder), "batch": 5},
        prior={"id": str(pipeline_folder)},
        priors={"prompted": {"id": str(pipeline_folder), "prompt": "a"}},
    )
    return base


@pytest.fixture(scope="module")
def made(inputs: Path) -> Build:
    return run(inputs / "r.yaml", inputs / "atlas")


@pytest.fixture
def copied(made: Build, tmp_path: Path) -> Path:
    """A finished atlas with its work directory, to change."""
    for path in (made.out, made.work):
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path / made.out.name


def test_the_atlas_verifies_and_opens(made: Build):
    assert verify(made.out) == []
    atlas = Atlas.open(made.out)
    assert atlas.models == ["paired", "alien", "drawn"] and atlas.count == 12
    assert [source.images for source in atlas.sources] == [12, 12, 6, 12]
    assert [source.label for source in atlas.sources] == ["Photographs", "paired", "alien", "Drawn"]


def test_the_atlas_says_how_sources_are_paired_and_what_was_skipped(made: Build):
    found = {source.name: (source.paired, source.pairing, source.skipped) for source in Atlas.open(made.out).sources}
    assert found == {
        "real": (True, "none", 1),
        "paired": (True, "stem", 0),
        "alien": (False, "none", 0),
        "drawn": (True, "generated", 0),
    }
    assert "broken.png" in made.skipped.read_text()
    none: dict[str, int] = {}
    assert Atlas.open(made.out).info.left_out == {"real": {"damaged": 1}, "paired": none, "alien": none, "drawn": none}


def test_the_summary_counts_images_captions_pairs_and_what_was_left_out(made: Build, capsys):
    counts = {**made.counts, "drawn": made.counts["drawn"] | {"skipped": {"not finite": 2, "damaged": 1}}}
    print_summary(replace(made, counts=counts))
    lines = capsys.readouterr().out.splitlines()
    assert "real: captions: 12 of 12, not finite: 0" in lines and "real: skipped: 1 damaged" in lines
    assert "paired: captions: 12 of 12, pairs: 12 of 12, not finite: 0" in lines
    assert "alien: captions: 0 of 6, pairs: 0 of 6, not finite: 0" in lines
    assert "drawn: captions: 12 of 12, pairs: 12 of 12, not finite: 2" in lines
    assert "drawn: skipped: 2 not finite; 1 damaged" in lines


def test_counterparts_show_the_same_caption(made: Build):
    atlas = Atlas.open(made.out)
    others = atlas.counterparts(5)
    assert {atlas.caption(image) for image in others.values()} == {atlas.caption(5)}
    assert set(others) >= {"paired", "drawn"} and "alien" not in others


def test_energies_add_up_to_what_the_tables_say(made: Build):
    atlas = Atlas.open(made.out)
    table = atlas.delta("paired")
    gap = np.asarray(atlas.energy("paired").mean(axis=0) - atlas.energy("real").mean(axis=0)).ravel()
    np.testing.assert_allclose(table["gap"], gap, atol=1e-5)
    np.testing.assert_allclose(atlas.codes("real").rows().sum(), atlas.energy("real").sum(), rtol=1e-2)


def test_models_are_named_so_that_they_can_be_found(made: Build, pipeline_folder: Path):
    atlas = Atlas.open(made.out)
    assert Path(atlas.resolve(atlas.info.prior["id"])) == pipeline_folder
    assert Path(atlas.resolve(atlas.info.encoder["id"])).is_dir()
    assert list(priors_of(atlas.info)) == ["default", "prompted"] and atlas.info.priors["prompted"]["prompt"] == "a"
    assert Path(atlas.resolve(atlas.info.priors["prompted"]["id"])) == pipeline_folder


def test_models_beside_the_atlas_are_named_relative_to_it(made: Build, inputs: Path, encoder_folder: Path):
    shutil.copytree(encoder_folder, inputs / "encoder", dirs_exist_ok=True)
    moved = run(inputs / "r.yaml", inputs / "atlas", f"encoder.id={inputs / 'encoder'}")
    assert moved.header["encoder"]["id"] == "../encoder" and ran(moved) == {"assemble"}
    assert ran(run(inputs / "r.yaml", inputs / "atlas")) == {"assemble"}


def test_a_second_run_does_nothing(copied: Path, inputs: Path):
    before = (copied / "atlas.json").stat()
    assert ran(run(inputs / "r.yaml", copied)) == set()
    assert (copied / "atlas.json").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("words.count=2", {"words", "assemble"}),
        ("layout.clusters=2", {"layout", "index", "assemble"}),
        ("models.alien.label=Other", {"assemble"}),
        ("dictionary.report_seeds=2", {"report", "assemble"}),
        ("models.drawn.steps=3", DRAWN | DIVERGENCE),
        ("delta.temperature=0.5", DIVERGENCE),
        ("encoder.batch=3", set()),
    ],
)
def test_a_changed_key_redoes_what_depends_on_it(copied: Path, inputs: Path, setting: str, again: set[str]):
    made = run(inputs / "r.yaml", copied, setting)
    assert ran(made) == again | ({"assemble"} if again else set()) and verify(copied) == []


@pytest.mark.parametrize("damage", ["gone", "changed", "incomplete"])
def test_an_atlas_that_is_not_the_one_written_is_written_again(copied: Path, inputs: Path, damage: str):
    (copied / "atlas.json").write_bytes((copied / "atlas.json").read_bytes() + b" ")
    run(inputs / "r.yaml", copied)  # its images are named relative to where it is now
    header = (copied / "atlas.json").read_bytes()
    if damage == "gone":
        shutil.rmtree(copied)
    elif damage == "changed":
        (copied / "atlas.json").write_bytes(header + b" ")
    else:
        (copied / "concepts.parquet").unlink()
    assert ran(run(inputs / "r.yaml", copied)) == {"assemble"} and (copied / "atlas.json").read_bytes() == header


def test_labels_stay_as_long_as_the_concepts_are_the_same(copied: Path, inputs: Path):
    rows = {"concept": [0, 1], "label": ["mine", "read"], "origin": ["person", "openai:m"], "score": [0.5, 0.9]}
    empty = Atlas.open(copied).concept_labels().reset_index().reindex([0, 1])
    write_concept_labels(copied, empty.assign(**rows, images=9))
    run(inputs / "r.yaml", copied, "models.alien.label=Other")
    kept = Atlas.open(copied).concept_labels()
    assert kept["label"].tolist() == ["mine", "read"] and kept["score"].notna().all() and verify(copied) == []
    run(inputs / "r.yaml", copied, "dictionary.steps=7")
    assert not len(Atlas.open(copied).concept_labels())


def refuse(recipe: Path, out: Path, *settings: str) -> str:
    with pytest.raises(BlindspotError) as caught:
        run(recipe, out, *settings)
    assert "\n" not in str(caught.value) and not out.exists()
    return str(caught.value)


def test_bad_inputs_are_said_in_a_sentence(inputs: Path, tmp_path: Path):
    recipe, out = inputs / "r.yaml", tmp_path / "atlas"
    (tmp_path / "empty").mkdir()
    assert "There is no folder" in refuse(recipe, out, f"real={tmp_path / 'nowhere'}")
    assert "has no images" in refuse(recipe, out, f"models.paired={tmp_path / 'empty'}")
    assert "nobody/nothing" in refuse(recipe, out, "encoder.id=nobody/nothing")
    assert "there is no such folder" in refuse(recipe, out, f"encoder.id={tmp_path / 'nowhere'}")
    assert "models.drawn.pipeline" in refuse(recipe, out, f"models.drawn.pipeline={tmp_path / 'nowhere'}")
    assert "prior.id" in refuse(recipe, out, f"prior.id={tmp_path / 'nowhere'}")
    assert "priors.prompted.id" in refuse(recipe, out, f"priors.prompted.id={tmp_path / 'nowhere'}")
    sentence = refuse(recipe, out, "models.alien.pairing=stem")
    assert "6 of its 6 images" in sentence and "12 real ones" in sentence and "0100" in sentence


def test_something_else_at_the_atlas_place_is_left_alone(inputs: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(BlindspotError, match="exists and is not an atlas"):
        run(inputs / "r.yaml", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_full_disk_is_said_in_a_sentence_and_can_be_gone_on_from(inputs: Path, tmp_path: Path, encoder_folder: Path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs rights that this user lacks")
    try:
        with pytest.raises(BlindspotError, match="disk is full"):
            run(inputs / "r.yaml", small / "atlas")
        assert not (small / "atlas").exists()
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert "corpus/real" not in ran(run(inputs / "r.yaml", small / "atlas"))
        assert verify(small / "atlas") == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_world_brings_its_ground_truth(tmp_path: Path, encoder_folder: Path):
    save_recipe(
        tmp_path / "r.yaml",
        real={"world": "tabletop", "count": 6, "seed": 3, "size": 32},
        models={"other": "other"},
        encoder={"id": str(encoder_folder)},
        dictionary={"concepts": 8, "sparsity": 2, "epochs": 1, "batch": 64},
    )
    (tmp_path / "other").mkdir()
    Image.new("RGB", (20, 30), "red").save(tmp_path / "other" / "0000002.png")
    run(tmp_path / "r.yaml", tmp_path / "atlas")
    atlas = Atlas.open(tmp_path / "atlas")
    assert verify(tmp_path / "atlas") == [] and set(atlas.labels()["attribute"]) == {"kind", "colour", "background"}
    assert atlas.counterparts(2) == {"other": 6} or atlas.counterparts(6)["real"] == 2
