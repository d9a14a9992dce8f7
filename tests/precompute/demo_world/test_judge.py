"""The demo's judge: trained with pictures that show nothing, calibrated, resumable; the committed one is good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from engine.files import DATA
from engine.vision.judge import Judge
from precompute.demo_world import judge
from precompute.demo_world.optimisation import Budget, RenderedScenes, to_unit
from precompute.demo_world.scenes import Scene, Thing, corpus, draw

FOLDER = DATA / "demo/judge"
SCENES = 400


@pytest.fixture(scope="module")
def scenes() -> RenderedScenes:
    found = corpus(24, 5)
    return RenderedScenes(np.stack([draw(scene) for scene in found]), found)


@pytest.fixture(scope="module")
def committed() -> Judge:
    return Judge.from_pretrained(FOLDER)


def test_the_truth_of_a_scene_is_what_it_holds() -> None:
    things = (Thing("disc", "red", 0.3, 0.3, 0.3), Thing("star", "red", 0.7, 0.7, 0.3))
    row = judge.truth_of([Scene("grass", things, 0)])[0]
    held = {label for label, value in zip(judge.LABELS, row, strict=True) if value}
    assert held == {"kind: disc", "kind: star", "colour: red", "background: grass"}


def test_pictures_of_nothing_ask_only_what_makes_sense(scenes: RenderedScenes) -> None:
    images, truth = to_unit(scenes.pixels), judge.truth_of(scenes.scenes)
    empty = judge.truth_of([Scene(scene.background, (), scene.seed) for scene in scenes.scenes[:2]])
    generator = torch.Generator().manual_seed(0)
    for found in (
        judge.show_nothing(images[:8], images[:2], empty, generator),
        judge.show_shapes(images[:2], empty, generator),
    ):
        kinds = found.known[:, : judge.OF_KIND]
        assert kinds.all() and not found.truth[:, : judge.OF_KIND].any()
        assert found.images.shape[1:] == (3, 64, 64) and found.images.min() >= 0 and found.images.max() <= 1
        assert found.known.shape == found.truth.shape == (len(found.images), truth.shape[1])


def test_training_in_two_goes_is_training_in_one(scenes: RenderedScenes, tmp_path: Path) -> None:
    short = tuple(Budget(steps, 24, 1e-3, averaging=0.9) for steps in (3, 2))

    def trained(folder: Path) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        return judge.train_judge(scenes, scenes.pixels[:8], folder, short).state_dict()

    whole = trained(tmp_path / "one")
    trained(tmp_path / "two")
    (tmp_path / "two" / "judge-refined.pt").unlink()
    again = trained(tmp_path / "two")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_calibration_makes_probabilities_frequencies_and_is_folded_into_the_weights() -> None:
    model = judge.build_judge().eval()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, len(judge.LABELS)))
    truth = (rng.random(z.shape) < 1 / (1 + np.exp(-(3 * z - 1)))).astype(np.float32)
    with torch.no_grad():
        image = torch.rand(2, 3, 96, 96)
        before = model(image).logits.numpy()
    lines = judge.calibrate(model, z, truth)
    with torch.no_grad():
        np.testing.assert_allclose(model(image).logits.numpy(), lines(before), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(lines(np.array([[0.0], [1.0]])).mean(axis=1), [-1, 2], atol=0.15)
    apart = np.where(truth > 0.5, 9.0, -9.0) + rng.normal(size=z.shape)
    assert np.abs(judge.calibrate(judge.build_judge(), apart, truth)(apart)).max() < 100, "no label is beyond float16"
    report = judge.held_out_report(model, lines(z), truth)
    assert max(row["calibration_error"] for row in report.values()) < 0.03
    assert all(0.15 <= value <= 0.9 for value in model.config.thresholds.values())


def test_the_committed_judge_is_right_on_scenes_it_has_not_seen(committed: Judge) -> None:
    found = corpus(SCENES, 987_654)
    seen = committed.decide(committed.probabilities(to_unit(np.stack([draw(scene) for scene in found]))))
    truth = judge.truth_of(found).numpy() > 0.5
    each = [balanced_accuracy_score(held, saw) for held, saw in zip(truth.T, seen.T, strict=True)]
    assert all(weight.isfinite().all() for weight in committed.model.state_dict().values())
    assert committed.labels == judge.LABELS and np.mean(each) >= 0.98 and min(each) >= 0.93
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6


def test_what_was_measured_of_it_stands_beside_it() -> None:
    report = json.loads((FOLDER / "held_out.json").read_text())
    assert min(row["balanced"] for row in report["rendered"].values()) >= 0.97
    assert np.mean([row["balanced"] for row in report["decoded"].values()]) >= 0.97
    assert max(row["calibration_error"] for row in report["rendered"].values()) <= 0.02


def test_junk_is_not_recognised(committed: Judge) -> None:
    """Grey squares, noise of every scale, empty surfaces and plain shapes on them show hardly any toy."""
    generator = torch.Generator().manual_seed(9)
    surfaces = to_unit(np.stack([draw(Scene(scene.background, (), scene.seed)) for scene in corpus(60, 31)]))
    row, column = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    radius, colour = 8 + 8 * torch.rand(60, 1, 1, generator=generator), torch.rand(60, 3, 1, 1, generator=generator)
    disk = (((row - 32) ** 2 + (column - 32) ** 2) < radius**2).float()[:, None]
    square = (((row - 32).abs() < radius) & ((column - 32).abs() < radius)).float()[:, None]
    junk = {
        "grey": torch.rand(60, 1, 1, 1, generator=generator).expand(60, 3, 64, 64),
        "noise": torch.rand(60, 3, 64, 64, generator=generator),
        "surfaces": surfaces,
        "disks": surfaces.lerp(colour, disk),
        "squares": surfaces.lerp(colour, square),
    }
    for cells in (4, 8, 16):
        coarse = torch.rand(60, 3, cells, cells, generator=generator)
        junk[f"blobs of {cells}"] = torch.nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(0, 1)
    for name, images in junk.items():
        kinds = committed.decide(committed.probabilities(images))[:, : judge.OF_KIND]
        assert kinds.any(axis=1).mean() <= 0.1, name
        assert kinds.mean() <= 0.01, name
