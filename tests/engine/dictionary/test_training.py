"""Training: constraints after every step, exact resume, revival, schedule, refusal of foreign checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.dictionary import training
from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.evaluation import evaluate
from engine.dictionary.spec import TrainConfig
from engine.dictionary.tokens import MemoryTokens
from engine.dictionary.topk import BatchTopK, TopK
from engine.dictionary.training import TrainingRun, TrainProgress, learning_rate, train
from engine.errors import BlindspotError

CONFIG = TrainConfig(epochs=3, batch=64)
KINDS = [TopK, BatchTopK, RelaxedArchetypal]
Planted = Callable[..., tuple[Tensor, Tensor]]


def fresh(kind: type[Dictionary], tokens: Tensor) -> Dictionary:
    dictionary = kind(tokens.shape[1], 24, 3)
    dictionary.mean.copy_(tokens.mean(dim=0))
    dictionary.scale.copy_(tokens.var(dim=0).mean().rsqrt())
    dictionary.initialise(dictionary.standardise(tokens), torch.Generator().manual_seed(0))
    return dictionary


@pytest.fixture(autouse=True)
def soon_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concepts are dead after 200 tokens, so that AuxK is at work in runs this short."""
    monkeypatch.setattr(training, "DEAD_AFTER", 200)


class Killed(Exception):
    """Stands for a process that ends in the middle."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_bit_for_bit_like_a_whole_one(kind: type, planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(640, 16, 12, 2)
    whole, parts = fresh(kind, tokens), fresh(kind, tokens)
    expected = train(whole, tokens, CONFIG)

    def kill(progress: TrainProgress) -> None:
        if progress.step in (6, 19):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            train(parts, tokens, CONFIG, on_progress=kill, checkpoint_dir=tmp_path, checkpoint_every=4)
        parts = kind(12, 24, 3)
    report = train(parts, tokens, CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert replace(report, seconds=0) == replace(expected, seconds=0)
    assert report.steps == 30


def test_another_runs_checkpoint_is_refused(planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    train(fresh(TopK, tokens), tokens, CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)
    for config, rows in ((replace(CONFIG, learning_rate=1e-4), 320), (CONFIG, 300)):
        with pytest.raises(BlindspotError, match="belongs to a run with other settings or tokens"):
            train(fresh(TopK, tokens), tokens[:rows], config, checkpoint_dir=tmp_path, checkpoint_every=4)
    with pytest.raises(BlindspotError, match="belongs to a run with other settings or tokens"):
        train(fresh(RelaxedArchetypal, tokens), tokens, CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)
    (tmp_path / "training.pt").write_bytes(b"torn")
    with pytest.raises(BlindspotError, match="is damaged; delete it"):
        train(fresh(TopK, tokens), tokens, CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)


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
    seen: list[TrainProgress] = []
    train(fresh(TopK, tokens), tokens, replace(CONFIG, epochs=20), on_progress=seen.append)
    assert [at.step for at in seen] == list(range(1, 101))
    assert all(0 < at.l0 < 3.001 and at.tokens_per_second > 0 for at in seen)
    assert seen[-1].r2 == pytest.approx(1 - sum(at.loss for at in seen[-20:]) / 20, abs=0.05)
    assert seen[-1].steps == 100
    assert sum(at.loss for at in seen[-5:]) < 0.9 * sum(at.loss for at in seen[:5])


def test_a_perfect_dictionary_scores_one() -> None:
    dictionary = TopK(4, 8, 1)
    with torch.no_grad():
        dictionary.decoder.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        dictionary.encoder.weight.copy_(dictionary.decoder)
        dictionary.encoder.bias.zero_()
    tokens = 3 * torch.cat([torch.eye(4)[:3], -torch.eye(4)[:3]])
    found = evaluate(dictionary, tokens)
    assert (found.r2, found.l0, found.dead_share) == pytest.approx((1, 1, 2 / 8))


def test_tokens_of_another_width_are_one_sentence() -> None:
    with pytest.raises(BlindspotError, match="width 5 but the dictionary reads 4"):
        train(TopK(4, 8, 1), torch.randn(10, 5), CONFIG)


class Faulty(MemoryTokens):
    """Tokens of which one batch comes back broken, as from a bad disk."""

    def __init__(self, tokens: Tensor, batch: int, value: float) -> None:
        super().__init__(tokens)
        self.left, self.value = batch, value

    def gather(self, rows: Tensor) -> Tensor:
        self.left -= 1
        found = super().gather(rows)
        return found if self.left else found.index_fill(0, torch.tensor([3]), self.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_batch_costs_no_step(kind: type, value: float, planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(640, 16, 12, 2)
    whole, parts = fresh(kind, tokens), fresh(kind, tokens)
    train(whole, tokens, CONFIG)
    with pytest.raises(BlindspotError, match="tokens of step 7 hold NaN or infinite numbers"):
        train(parts, Faulty(tokens, 7, value), CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)
    assert all(parameter.isfinite().all() for parameter in parts.parameters())
    seen: list[TrainProgress] = []
    train(kind(12, 24, 3), tokens, CONFIG, on_progress=seen.append, checkpoint_dir=tmp_path, checkpoint_every=4)
    assert seen[0].step == 7
    resumed = kind(12, 24, 3)
    train(resumed, tokens, CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_divergence_is_one_sentence(planted: Planted, tmp_path: Path) -> None:
    tokens, _ = planted(320, 16, 12, 2)
    dictionary = fresh(TopK, tokens)
    with torch.no_grad():
        dictionary.encoder.weight[0] = torch.inf
    with pytest.raises(BlindspotError, match="Training diverged in step 1; lower the learning rate"):
        train(dictionary, tokens, CONFIG, checkpoint_dir=tmp_path, checkpoint_every=4)
    assert not list(tmp_path.iterdir())


def plain_step(dictionary: Dictionary, x: Tensor, config: TrainConfig) -> None:
    """What a step is, by autograd through everything and torch's own clipping and AdamW."""
    groups = [
        {"params": [dictionary.get_parameter(name)], "lr": rate * learning_rate(0, 1, config)}
        for name, rate in {
            "encoder.weight": dictionary.dim**-0.5,
            "encoder.bias": 1,
            "slack": 1,
            "log_multiplier": 1,
            "weights": 2 / dictionary.candidates,
        }.items()
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    target = dictionary.standardise(x)
    values, indices = dictionary.encoder(target).topk(dictionary.sparsity, dim=-1)
    codes = torch.zeros(len(x), dictionary.concepts).scatter(1, indices, values.relu())
    (codes @ dictionary._atoms() - target).square().mean().backward()
    assert dictionary.weights.grad.norm() > 0.1 * training.CLIP_NORM
    torch.nn.utils.clip_grad_norm_(dictionary.parameters(), training.CLIP_NORM)
    optimiser.step()
    dictionary.constrain()


def test_a_frugal_step_is_a_plain_one(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dictionary.archetypal.BLOCK_ENTRIES", 100)
    monkeypatch.setattr(training, "CLIP_NORM", 0.02)
    tokens, _ = planted(64, 16, 12, 2)
    config = TrainConfig(steps=1, batch=64, precision="float32")
    frugal, plain = fresh(RelaxedArchetypal, tokens), fresh(RelaxedArchetypal, tokens)
    train(frugal, tokens, config)
    plain_step(plain, tokens, config)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(frugal.get_parameter(name), parameter, msg=name, rtol=1e-4, atol=1e-6)


class Formed(TorchDispatchMode):
    """Notes what is computed into memory of its own: the entries of every such result."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.entries: list[int] = []
        self.known = {value.untyped_storage().data_ptr() for value in dictionary.state_dict().values()}

    def __torch_dispatch__(self, call: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        found = call(*args, **(kwargs or {}))
        for value in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in self.known:
                self.entries.append(value.untyped_storage().nbytes() // value.itemsize)
        return found


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_step_forms_no_matrix_of_all_concepts(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dictionary.archetypal.BLOCK_ENTRIES", 2000)
    monkeypatch.setattr("engine.dictionary.archetypal.CHUNK_ENTRIES", 2000)
    monkeypatch.setattr("engine.dictionary.encoding.CHUNK_ENTRIES", {"cpu": 2000})
    tokens = MemoryTokens(torch.randn(200, 4))
    dictionary = RelaxedArchetypal(4, 200, 2)
    run = TrainingRun(dictionary, tokens, tokens, replace(CONFIG, batch=200, precision=precision))
    with Formed(dictionary) as formed:
        run.advance()
        run.advance()
    assert len(formed.entries) > 100
    assert max(formed.entries) < 200 * 200 / 10, "neither weights [K, K], their gradient, nor pre-activations [N, K]"


def test_atoms_are_computed_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    computed = RelaxedArchetypal._atoms
    monkeypatch.setattr(RelaxedArchetypal, "_atoms", lambda self: calls.append(1) or computed(self))
    tokens = MemoryTokens(torch.randn(200, 4))
    run = TrainingRun(RelaxedArchetypal(4, 24, 2), tokens, tokens, CONFIG)
    for _ in range(3):
        run.advance()
    assert len(calls) == 3
