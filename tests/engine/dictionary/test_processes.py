"""Training with `accelerate`: one process changes nothing, two do together what one does alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState, debug_launcher
from accelerate.state import AcceleratorState
from torch import Tensor

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.checkpoints import load_dictionary, save_dictionary
from engine.dictionary.processes import Processes
from engine.dictionary.schedule import TrainConfig
from engine.dictionary.training import train

CONFIG = TrainConfig(steps=12, batch_size=64, dead_after=100, precision="float32")


def made(tokens: Tensor, accelerator: Accelerator | None) -> RelaxedArchetypal:
    """A dictionary trained from a fixed start."""
    dictionary = RelaxedArchetypal(12, 24, 3)
    dictionary.initialise(tokens, torch.Generator().manual_seed(0))
    train(dictionary, tokens, CONFIG, accelerator=accelerator)
    return dictionary


def test_one_process_changes_nothing(planted: Callable[..., tuple[Tensor, Tensor]]) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    alone, accelerated = made(tokens, None), made(tokens, Accelerator(cpu=True))
    for name, value in alone.state_dict().items():
        assert torch.equal(value, accelerated.state_dict()[name]), name


def in_each_process(tokens: Tensor, folder: Path) -> None:
    PartialState._reset_state()
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    save_dictionary(made(tokens, accelerator), folder / str(accelerator.process_index))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(planted: Callable[..., tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    debug_launcher(in_each_process, (tokens, tmp_path), num_processes=2)
    first, second = (load_dictionary(tmp_path / str(rank)).state_dict() for rank in range(2))
    for name, value in made(tokens, None).state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_batch_is_shared_out_in_whole_maps() -> None:
    halves = []
    for rank in range(2):
        processes = Processes()
        processes.count, processes.rank = 2, rank
        halves.append(processes.share(torch.arange(20), together=4))
    assert [half.tolist() for half in halves] == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
