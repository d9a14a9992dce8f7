"""`python -m precompute convert-adm`: a folder that opens as a prior, and one sentence for bad input."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from engine.priors.adm import ADMConfig, build_adm
from engine.priors.loading import load_prior
from engine.priors.spec import PriorSpec
from tests.engine.priors.tiny import tiny_adm

CONFIG = ADMConfig(image_size=16, channels=32, multipliers=(1, 2), blocks=1, attention=(1,), heads=2)


@pytest.fixture
def command(run_command):
    """Runs the command in this process; gives exit code, stdout and stderr."""
    return partial(run_command, "convert-adm")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save(tiny_adm(CONFIG).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_it_writes_a_prior_and_says_what_was_assumed(command, checkpoint, tmp_path):
    code, out, err = command(checkpoint, "--out", tmp_path / "a" / "adm", "--image-size", 16, "--heads", 2)
    count = sum(parameter.numel() for parameter in build_adm(CONFIG).parameters())
    assert code == 0 and err == ""
    assert out.splitlines() == [
        f"{tmp_path / 'a' / 'adm'}: {count:,} parameters, unconditional, learned variance.",
        "Assumed: 16 x 16 pixels, linear noise, 2 heads, legacy attention order.",
    ]
    prior = load_prior(PriorSpec(str(tmp_path / "a" / "adm"), "adm"))
    assert prior.shape == (3, 16, 16) and prior.schedule.learned_variance


def test_json_is_one_document(command, checkpoint, tmp_path):
    words = (checkpoint, "--out", tmp_path / "adm", "--image-size", 16, "--heads", 2, "--noise", "cosine", "--json")
    code, out, _ = command(*words)
    document = json.loads(out)
    assert code == 0 and document["noise"] == "cosine" and document["config"]["heads"] == 2


def test_bad_input_is_one_sentence_and_writes_nothing(command, tmp_path):
    code, out, err = command(tmp_path / "nowhere.pt", "--out", tmp_path / "adm")
    assert code == 1 and out == "" and err.count("\n") == 1 and "There is no checkpoint" in err
    assert not (tmp_path / "adm").exists()
