import pytest

from engine.errors import BlindspotError
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.instruments import Instruments
from engine.samplers.registry import SAMPLERS, Settings, create
from engine.samplers.retrieval import Retrieval


def test_each_name_makes_its_sampler(atlas):
    models = Instruments(atlas, "cpu")
    made = {name: create(name, models, Settings(steps=7, strength=0.5, cap=2.0)) for name in SAMPLERS}
    assert made["energydps"] == EnergyDPS(models.prior, 7, 0.5, cap=2.0)
    assert made["energydps-light"].guidance == "light"
    assert made["prior"].strength == 0
    assert isinstance(made["retrieval"], Retrieval)


def test_an_unknown_name_is_answered_with_the_known_ones(atlas):
    with pytest.raises(BlindspotError, match="no sampling method 'magic': choose one of energydps, energydps-light"):
        create("magic", Instruments(atlas, "cpu"), Settings(10, 1.0))
