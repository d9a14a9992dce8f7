"""`python -m precompute stress`: models are asked, what they show is in the atlas, and a second run draws nothing."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.storage import manifest
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from engine.jobs import Cancelled, JobQueue
from engine.samplers.models import ModelBundle
from engine.stress import images as asking
from engine.stress.images import pipelines_in
from engine.stress.records import (
    RECORD,
    finished_stress,
    load_stress,
    rows_of,
    stress_sentence,
    strip_bytes,
    submit_stress,
)
from precompute.serve import DEMO_ATLAS
from precompute.stress import pipelines_of
from tests.drawable import build_drawable_atlas
from tests.engine.priors.tiny import ONE_LEVEL, tiny_pipeline
from tests.synthetic import build_synthetic_atlas

ASK = ("--count", "3", "--images", "2", "--steps", "1")


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    """An atlas of two models whose pipelines its header names."""
    root = tmp_path_factory.mktemp("asked")
    path = build_drawable_atlas(root, 24, pairs=90, models=("alpha", "beta"))
    tiny_pipeline(root / "pipeline", **ONE_LEVEL)
    header = json.loads((path / "atlas.json").read_text())
    one = {"pipeline": "../pipeline", "steps": 2, "guidance": 1.0, "batch": 4}
    header["pipelines"] = {"alpha": one, "beta": one | {"guidance": 2.0}}
    header["files"] = {rel: asdict(entry) for rel, entry in manifest(path).items()}
    (path / "atlas.json").write_text(json.dumps(header))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return build_synthetic_atlas(tmp_path_factory.mktemp("plain") / "atlas", concepts=24, pairs=12, models=("alpha",))


@pytest.fixture
def stress(asked: Path, run_command):
    """Runs the command and reads its JSON."""

    def call(*words: object) -> dict:
        code, out, err = run_command("stress", asked, *words, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def test_what_models_show_is_in_the_atlas_and_on_contact_sheets_and_a_second_run_draws_nothing(
    stress, asked: Path, tmp_path: Path, monkeypatch
):
    concept = 0
    found = stress("--concept", concept, "--word", "disc", *ASK, "--out", tmp_path / "out")
    rows = Atlas.open(asked).stress(concept)
    assert not verify(asked) and set(rows["model"]) == {"alpha", "beta"} and (rows["images"] == 6).all()
    (one,) = found["concepts"]
    assert [row["model"] for row in one["models"]] == ["alpha", "beta"] and one["asked"] == 3
    assert all(0 <= row["ci_low"] <= row["rate"] <= row["ci_high"] <= 1 for row in one["models"])
    assert all(row["verdict"] in ("true blindspot", "promptable", "not decided") for row in one["models"])
    sheet = Image.open(tmp_path / "out" / f"{concept}-alpha.png")
    assert sheet.width > 900 and json.loads((tmp_path / "out" / "prompts.json").read_text()).keys() == {str(concept)}
    assert f"asked for “{one['word']}” by 3 prompts, alpha" in stress_sentence(rows_of(Atlas.open(asked), concept)[0])
    strip = Image.open(io.BytesIO(Atlas.open(asked).stress_bytes(concept, "beta")))
    assert strip.width == 6 * strip.height + 5

    monkeypatch.setattr(asking, "load_pipeline", None)  # nothing may be drawn again
    again = stress("--concept", concept, "--word", "disc", *ASK)
    assert again["concepts"] == found["concepts"] and Atlas.open(asked).stress(concept).equals(rows)


def test_a_part_of_the_prompts_gives_the_same_images_and_a_killed_run_goes_on(asked: Path, tmp_path: Path):
    atlas, spec = Atlas.open(asked), pipelines_in(Atlas.open(asked))["alpha"].model_copy(update={"steps": 1})
    models, seen = ModelBundle(atlas, "cpu"), []

    def stop(count: int, images: list) -> None:
        seen.append(len(images))
        if len(seen) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        asking.ask(models, spec, ["a", "b", "c"], 2, tmp_path / "whole", stop)
    whole = asking.ask(
        models, spec, ["a", "b", "c"], 2, tmp_path / "whole", lambda count, images: seen.append(len(images))
    )
    assert seen == [4, 2, 0, 0] and [image.prompt for image in whole] == ["a", "b", "c"] * 2
    part = asking.ask(models, spec, ["c"], 2, tmp_path / "part", lambda count, images: None)
    for one, other in zip(part, whole[2::3], strict=True):
        assert np.abs(np.asarray(one.picture(), int) - np.asarray(other.picture(), int)).max() <= 1
    energies = asking.energies_of(models, [whole[0].picture()])[0]
    assert whole[0].energies == pytest.approx({k: float(e) for k, e in enumerate(energies) if e > 0}, rel=1e-4)


def test_energies_are_those_that_the_atlas_stores(asked: Path):
    """Of an image that was encoded and summed as a run does it."""
    from engine.blindspots.energy import EnergyPass
    from engine.vision.preprocess import to_tensor
    from precompute.stages.energies import sparse_codes

    atlas = Atlas.open(asked)
    models, picture = ModelBundle(atlas, "cpu"), atlas.image(0)
    tokens = models.encoder(to_tensor([picture], models.encoder.spec)).flat()
    codes = sparse_codes(models.dictionary, tokens.flatten(0, 1).detach().numpy())
    spec = models.encoder.spec
    summed = EnergyPass(atlas.count, spec.tokens, spec.prefix_tokens).add(codes.indptr, codes.indices, codes.values)
    assert np.allclose(asking.energies_of(models, [picture]), summed.toarray(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Give the concepts by --concept N, or --suppressed N."),
        (("--concept", 999), "There is no concept 999"),
        (("--concept", 1, "--word", "no such thing"), "No caption of a real image names 'no such thing'"),
        (("--concept", 1, "--model", "gamma"), "There is no pipeline for 'gamma': choose alpha, beta."),
        (("--concept", 1, "--word", "disc", "--against", "gamma"), "There is no 'gamma' to compare with"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_sentence(asked: Path, run_command, words: tuple, said: str):
    code, _, err = run_command("stress", asked, *words)
    assert code == 1 and said in " ".join(err.split())


def test_an_atlas_without_pipelines_asks_for_its_recipe(plain: Path, run_command):
    code, _, err = run_command("stress", plain, "--concept", 1)
    assert code == 1 and "give --recipe RECIPE" in " ".join(err.split())


def test_the_demo_names_its_pipelines_without_a_recipe():
    pipelines = pipelines_of(Atlas.open(DEMO_ATLAS), None)
    assert set(pipelines) == {"base", "base-early", "no-disc", "woody"} and pipelines["base"].steps == 20


def test_the_app_runs_a_test_as_a_job_and_finds_it_again(asked: Path, tmp_path: Path):
    atlas, queue = Atlas.open(asked), JobQueue(tmp_path / "jobs")
    job = submit_stress(queue, atlas, 0, count=2, per_prompt=1)
    done = queue.wait(job.id, 120)
    assert done is not None and done.state == "done", done
    assert submit_stress(queue, atlas, 0, count=2, per_prompt=1).id == job.id
    found = finished_stress(JobQueue(tmp_path / "jobs"), atlas, 0)
    assert found is not None and [row.model for row in found[1]] == ["alpha", "beta"]
    assert found[1][0].images == 2 and Image.open(io.BytesIO(strip_bytes(found[0].result_dir, found[1][0]))).height > 0
    assert finished_stress(queue, atlas, 1) is None
    (found[0].result_dir / RECORD).write_text('{"atlas": "x", "rows": [{}], "seconds": 1}')
    with pytest.raises(BlindspotError, match="holds no stress test"):
        load_stress(found[0].result_dir)
    queue.close()
