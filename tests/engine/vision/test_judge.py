"""A judge is any image classifier of transformers: of several labels with thresholds, or of the most likely one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import BlindspotError
from engine.vision.judge import Judge
from tests.judges import save_judge

LABELS = ("kind: disc", "kind: star", "background: grass")
IMAGES = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge") / "several", LABELS, sees=("kind: disc", "background: grass"))


def test_of_several_labels_each_has_its_own_probability(folder: Path) -> None:
    judge = Judge.from_pretrained(folder)
    found = judge.probabilities(IMAGES)
    assert judge.labels == LABELS and found.shape == (5, 3)
    np.testing.assert_allclose(found, np.tile(1 / (1 + np.exp([-5.0, 5.0, -5.0])), (5, 1)), rtol=1e-5)
    assert judge.decide(found).tolist() == [[True, False, True]] * 5
    assert judge.sees(IMAGES, "kind: disc").all() and not judge.sees(IMAGES, "kind: star").any()
    assert not judge.sees(IMAGES, "kind: disc", threshold=0.999).any()
    with pytest.raises(BlindspotError, match="does not know the label 'kind: fish'"):
        judge.sees(IMAGES, "kind: fish")


def test_thresholds_of_the_config_decide(tmp_path: Path) -> None:
    thresholds = {"kind: disc": 0.999, "kind: star": 0.001}
    judge = Judge.from_pretrained(save_judge(tmp_path, LABELS, sees=("kind: disc",), thresholds=thresholds))
    assert judge.decide(judge.probabilities(IMAGES)).tolist() == [[False, True, False]] * 5


@pytest.mark.parametrize("thresholds", [{"kind: disc": 1.5}, {"kind: disc": "high"}, [0.5, 0.5, 0.5]])
def test_thresholds_that_are_no_probabilities_are_refused(tmp_path: Path, thresholds: object) -> None:
    save_judge(tmp_path, LABELS, thresholds=thresholds)
    with pytest.raises(BlindspotError, match="are no probabilities by label"):
        Judge.from_pretrained(tmp_path)


def test_of_one_label_an_image_only_the_most_likely_counts(tmp_path: Path) -> None:
    judge = Judge.from_pretrained(save_judge(tmp_path, LABELS, sees=("kind: star",), several=False))
    found = judge.probabilities(IMAGES)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert judge.thresholds is None and judge.decide(found).tolist() == [[False, True, False]] * 5
    assert judge.sees(IMAGES, "kind: star", threshold=0.9999).all()


def test_images_of_any_size_are_prepared_as_its_settings_say(folder: Path) -> None:
    judge = Judge.from_pretrained(folder)
    assert judge.preparation.image_size == 32 and judge.preparation.mean == (0.5, 0.5, 0.5)
    assert judge.probabilities(torch.rand(2, 3, 17, 90)).shape == (2, 3)
    assert judge.probabilities(torch.zeros(0, 3, 8, 8)).shape == (0, 3)


def test_what_is_no_judge_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BlindspotError, match="There is no judge folder"):
        Judge.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BlindspotError, match="cannot be loaded"):
        Judge.from_pretrained(tmp_path / "empty")
    other = save_judge(tmp_path / "other", LABELS)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_sizes": [4, 8, 8], "depths": [1, 1, 1]}))
    with pytest.raises(BlindspotError, match="do not fit its config"):
        Judge.from_pretrained(other)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "empty" / "pytorch_model.bin")
    (tmp_path / "empty" / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(BlindspotError, match="cannot be loaded"):
        Judge.from_pretrained(tmp_path / "empty")
