"""Conversion of guided-diffusion checkpoints: strict, safe, and one sentence for whatever is wrong."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import BlindspotError
from engine.priors.adm import CONFIG, WEIGHTS, ADMConfig, empty_adm, tensor_places
from engine.priors.adm_conversion import ADMAssumptions, convert_adm, shape_of
from engine.priors.loading import load_prior
from tests.engine.priors.adm_reference import ADMUNet
from tests.engine.priors.tiny import TINY_ADM, tiny_adm

ASSUMED = ADMAssumptions(image_size=16, heads=2)
TWO_HEADS = replace(TINY_ADM, heads=2, head_channels=64)


@pytest.fixture
def checkpoint(tmp_path):
    """A .pt file as guided-diffusion saves them: the bare state dict."""
    torch.save(tiny_adm(TWO_HEADS).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def refusal(source, folder, assumed=ASSUMED):
    with pytest.raises(BlindspotError) as caught:
        convert_adm(source, folder, assumed)
    assert not folder.exists() and not list(folder.parent.glob("*.partial"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_converted_network_predicts_what_the_checkpoint_s_does(checkpoint, tmp_path):
    made = convert_adm(checkpoint, tmp_path / "new" / "adm", ASSUMED)
    unet = tiny_adm(TWO_HEADS)
    assert made.parameters == sum(parameter.numel() for parameter in unet.parameters())
    prior = load_prior(tmp_path / "new" / "adm", "adm")
    x = prior.noise([torch.Generator().manual_seed(0)])
    with torch.no_grad():
        torch.testing.assert_close(prior.network(x, 500), unet(x, torch.tensor([500])))
    assert sorted(file.name for file in (tmp_path / "new" / "adm").iterdir()) == [CONFIG, WEIGHTS]


def empty_reference(config):
    with torch.device("meta"):
        return ADMUNet(config)


PUBLISHED = [
    ADMConfig(),
    ADMConfig(classes=1000),
    ADMConfig(image_size=512, multipliers=(0.5, 1, 1, 2, 2, 4, 4), attention=(4, 5, 6), classes=1000),
    ADMConfig(image_size=128, multipliers=(1, 1, 2, 3, 4), attention=(2, 3, 4), heads=4, classes=1000),
    ADMConfig(image_size=64, channels=192, multipliers=(1, 2, 3, 4), blocks=3, attention=(1, 2, 3), qkv="new"),
    ADMConfig(multipliers=(1,), attention=(), learned_variance=False),
]  # fmt: skip


@pytest.mark.parametrize("config", PUBLISHED)
def test_diffusers_has_a_place_for_every_tensor_of_a_published_network(config):
    expected = {name: tuple(tensor.shape) for name, tensor in empty_reference(config).state_dict().items()}
    assert {name: place.shape for name, place in tensor_places(config, empty_adm(config)).items()} == expected


@pytest.mark.parametrize("config", PUBLISHED)
def test_the_shape_of_every_published_network_is_in_its_tensors(config):
    assumed = ADMAssumptions(config.image_size, config.heads, config.qkv)
    assert shape_of(empty_reference(config).state_dict(), "x.pt", assumed) == config


def test_what_the_checkpoint_does_not_say_is_kept(checkpoint, tmp_path):
    convert_adm(checkpoint, tmp_path / "adm", replace(ASSUMED, qkv="new", noise="cosine"))
    prior = load_prior(tmp_path / "adm", "adm")
    assert json.loads((tmp_path / "adm" / CONFIG).read_text())["qkv"] == "new"
    assert prior.unet.mid_block.attentions[0].heads == 2 and prior.image_size == 16
    assert prior.schedule.abar[500] == pytest.approx(0.49, abs=0.02)


def test_safetensors_are_read_as_well(tmp_path):
    save_file(tiny_adm(TWO_HEADS, classes=3).state_dict(), tmp_path / "model.safetensors")
    assert convert_adm(tmp_path / "model.safetensors", tmp_path / "adm", ASSUMED).config.classes == 3


def test_an_old_style_checkpoint_is_read_as_well(tmp_path):
    torch.save(tiny_adm(TWO_HEADS).state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert convert_adm(tmp_path / "old.pt", tmp_path / "adm", ASSUMED).config == TWO_HEADS


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_of_code_is_refused_and_nothing_runs(tmp_path, new):
    state = {**tiny_adm(TWO_HEADS).state_dict(), "trap": Trap(tmp_path / "mark")}
    torch.save(state, tmp_path / "evil.pt", _use_new_zipfile_serialization=new)
    assert "is a pickle of objects" in refusal(tmp_path / "evil.pt", tmp_path / "adm")
    assert not (tmp_path / "mark").exists()


def test_a_missing_a_strange_and_a_reshaped_tensor_are_named(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    del state["middle_block.0.in_layers.0.bias"]
    state["input_blocks.1.0.in_layers.2.weight"] = torch.zeros(32, 32, 1, 1)
    state["extra"] = torch.zeros(1)
    torch.save(state, checkpoint)
    said = refusal(checkpoint, tmp_path / "adm")
    assert "middle_block.0.in_layers.0.bias is missing, extra has no place" in said
    assert "input_blocks.1.0.in_layers.2.weight has shape (32, 32, 1, 1) instead of (32, 32, 3, 3)" in said


def test_other_files_are_refused(tmp_path):
    assert "no checkpoint" in refusal(tmp_path / "nowhere.pt", tmp_path / "adm")
    (tmp_path / "noise.pt").write_bytes(b"not a checkpoint at all")
    refusal(tmp_path / "noise.pt", tmp_path / "adm")
    (tmp_path / "noise.safetensors").write_bytes(b"not a checkpoint at all")
    assert "not a readable" in refusal(tmp_path / "noise.safetensors", tmp_path / "adm")
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    assert "no guided-diffusion ADM checkpoint" in refusal(tmp_path / "other.pt", tmp_path / "adm")
    torch.save({"state": {"a": torch.zeros(1)}}, tmp_path / "wrapped.pt")
    assert "no state dict of tensors" in refusal(tmp_path / "wrapped.pt", tmp_path / "adm")


def test_heads_that_do_not_divide_and_unknown_schedules_are_refused(checkpoint, tmp_path):
    assert "cannot have 5 heads" in refusal(checkpoint, tmp_path / "adm", replace(ASSUMED, heads=5))
    assert "choose linear or cosine" in refusal(checkpoint, tmp_path / "adm", replace(ASSUMED, noise="sigmoid"))


def test_an_existing_folder_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "adm").mkdir()
    with pytest.raises(BlindspotError, match="exists already"):
        convert_adm(checkpoint, tmp_path / "adm", ASSUMED)
    assert not list((tmp_path / "adm").iterdir())


def test_a_damaged_folder_is_one_sentence(checkpoint, tmp_path):
    folder = tmp_path / "adm"
    with pytest.raises(BlindspotError, match="no converted ADM network: make one with"):
        load_prior(folder, "adm")
    convert_adm(checkpoint, folder, ASSUMED)
    described = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**described, "channels": 64}))
    with pytest.raises(BlindspotError, match="do not fit an ADM network of that shape"):
        load_prior(folder, "adm")
    (folder / CONFIG).write_text(json.dumps({**described, "noise": "sigmoid"}))
    with pytest.raises(BlindspotError, match="cannot be read"):
        load_prior(folder, "adm")
