"""Dictionaries survive a round trip and damaged folders are refused."""

import json
from pathlib import Path

import pytest
import torch

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.topk import TopK
from engine.errors import BlindspotError

DICTIONARIES = [TopK(4, 8, 2), RelaxedArchetypal(4, 8, 2, candidates=5, delta=0.5)]


@pytest.mark.parametrize("dictionary", DICTIONARIES, ids=lambda d: d.kind)
def test_round_trip(dictionary: Dictionary, tmp_path: Path) -> None:
    with torch.no_grad():
        dictionary.mean.fill_(2.0)
        dictionary.scale.fill_(0.25)
        dictionary.encoder.bias.normal_()
    dictionary.save_pretrained(tmp_path / "new" / "folder")
    loaded = Dictionary.from_pretrained(tmp_path / "new" / "folder")
    assert type(loaded) is type(dictionary)
    assert loaded.settings() == dictionary.settings()
    x = torch.randn(7, 4)
    assert torch.equal(loaded.reconstruct(x), dictionary.reconstruct(x))
    assert torch.equal(loaded.atoms(), dictionary.atoms())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "dictionary.safetensors",
    ]


def test_incomplete_or_damaged_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BlindspotError, match=r"has no config\.json"):
        Dictionary.from_pretrained(tmp_path)
    TopK(4, 8, 2).save_pretrained(tmp_path)
    (tmp_path / "dictionary.safetensors").rename(tmp_path / "aside")
    with pytest.raises(BlindspotError, match=r"has no dictionary\.safetensors"):
        Dictionary.from_pretrained(tmp_path)
    (tmp_path / "dictionary.safetensors").write_bytes((tmp_path / "aside").read_bytes()[:100])
    with pytest.raises(BlindspotError, match="does not hold the dictionary"):
        Dictionary.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concepts": 9}, "does not hold the dictionary"),
        ({"dim": 5}, "does not hold the dictionary"),
        ({"kind": "archetypal"}, "does not hold the dictionary"),
        ({"surprise": 1}, "does not hold the dictionary"),
        ({"kind": "neural"}, "no dictionary kind 'neural'; choose one of archetypal, batchtopk, "),
    ],
)
def test_config_must_fit_the_tensors(tmp_path: Path, change: dict, message: str) -> None:
    TopK(4, 8, 2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BlindspotError, match=message):
        Dictionary.from_pretrained(tmp_path)


def test_unreadable_config_is_one_sentence(tmp_path: Path) -> None:
    TopK(4, 8, 2).save_pretrained(tmp_path)
    for text in ("{", "[]", "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BlindspotError, match="does not describe a dictionary"):
            Dictionary.from_pretrained(tmp_path)
