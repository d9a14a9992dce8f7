"""Training: constraints after every step, exact resume, revival, schedule, refusal of foreign checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.topk import TopK
from engine.dictionary.training import Progress, TrainConfig, evaluate, learning_rate, train
from engine.errors import BlindspotError

CONFIG = TrainConfig(epochs=3, batch_size=64, checkpoint_every=4, dead_after=200)
KINDS = [TopK, RelaxedArchetypal]
Planted = Callable[..., tuple[Tensor, Tensor]]


def fresh(kind: type[Dictionary], tokens: Tensor) -> Dictionary:
    dictionary = kind(tokens.shape[1], 24, 3)
    dictionary.mean.copy_(tokens.mean(dim=0))
    dictionary.scale.copy_(tokens.var(dim=0).mean().rsqrt())
    dictionary.initialise(dictionary.standardise(tokens), torch.Generator().manual_seed(0))
    return dictionary


class Killed(Exception):
    """Stands for a process that ends in the middle."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_bit_for_bit_like_a_whole_one(kind: type, planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(640, 16, 12, 2)
    whole, parts = fresh(kind, tokens), fresh(kind, tokens)
    expected = train(whole, tokens, CONFIG)

    def kill(progress: Progress) -> None:
        if progress.step in (6, 19):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            train(parts, tokens, CONFIG, on_progress=kill, checkpoint_dir=tmp_path)
        parts = kind(12, 24, 3)
    report = train(parts, tokens, CONFIG, checkpoint_dir=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert replace(report, seconds=0) == replace(expected, seconds=0)
    assert report.steps == 30


def test_another_runs_checkpoint_is_refused(planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    train(fresh(TopK, tokens), tokens, CONFIG, checkpoint_dir=tmp_path)
    for config, rows in ((replace(CONFIG, learning_rate=1e-4), 320), (CONFIG, 300)):
        with pytest.raises(BlindspotError, match="belongs to a run with other settings or tokens"):
            train(fresh(TopK, tokens), tokens[:rows], config, checkpoint_dir=tmp_path)
    with pytest.raises(BlindspotError, match="belongs to a run with other settings or tokens"):
        train(fresh(RelaxedArchetypal, tokens), tokens, CONFIG, checkpoint_dir=tmp_path)
    (tmp_path / "training.safetensors").write_bytes(b"torn")
    with pytest.raises(BlindspotError, match="is damaged; delete it"):
        train(fresh(TopK, tokens), tokens, CONFIG, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_constraints_hold_after_the_last_step(kind: type, planted: Planted) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    dictionary = fresh(kind, tokens)
    train(dictionary, tokens, CONFIG)
    if isinstance(dictionary, TopK):
        torch.testing.assert_close(dictionary.decoder.norm(dim=-1), torch.ones(24))
    else:
        assert (dictionary.weights >= 0).all()
        torch.testing.assert_close(dictionary.weights.sum(dim=-1), torch.ones(24))
        assert dictionary.slack.norm(dim=-1).max() <= dictionary.delta + 1e-6


@pytest.mark.slow
def test_silent_concepts_come_back(planted: Planted) -> None:
    tokens, _ = planted(2000, 16, 12, 2)

    def dead_share(revival: float) -> float:
        dictionary = fresh(TopK, tokens)
        with torch.no_grad():
            dictionary.encoder.bias[:12] = -1.5
        return train(dictionary, tokens, replace(CONFIG, epochs=20, revival=revival)).dead_share

    assert dead_share(revival=1 / 32) < dead_share(revival=0.0) - 0.1


def test_the_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(step, 1000, TrainConfig()) for step in range(1000)]
    assert rates[49] == max(rates) == 1e-3
    assert rates[24] == pytest.approx(5e-4)
    assert rates[525] == pytest.approx(5e-4, rel=0.01)
    assert rates[-1] == pytest.approx(1e-6, rel=0.01)


def test_progress_counts_up_to_the_end(planted: Planted) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    seen: list[Progress] = []
    train(fresh(TopK, tokens), tokens, replace(CONFIG, epochs=20), on_progress=seen.append)
    assert [at.step for at in seen] == list(range(1, 101))
    assert seen[-1].steps == 100
    assert sum(at.loss for at in seen[-5:]) < 0.9 * sum(at.loss for at in seen[:5])


def test_a_perfect_dictionary_scores_one() -> None:
    dictionary = TopK(4, 8, 1)
    with torch.no_grad():
        dictionary.decoder.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        dictionary.encoder.weight.copy_(dictionary.decoder)
        dictionary.encoder.bias.zero_()
    tokens = 3 * torch.cat([torch.eye(4)[:3], -torch.eye(4)[:3]])
    assert evaluate(dictionary, tokens) == pytest.approx((1, 1, 2 / 8))


def test_tokens_of_another_width_are_one_sentence() -> None:
    with pytest.raises(BlindspotError, match="width 5 but the dictionary reads 4"):
        train(TopK(4, 8, 1), torch.randn(10, 5))


def test_divergence_is_one_sentence(planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    tokens[7] = torch.inf
    with pytest.raises(BlindspotError, match="Training diverged"):
        train(TopK(12, 24, 3), tokens, CONFIG, checkpoint_dir=tmp_path)
    assert not list(tmp_path.iterdir())
