"""The relaxed archetypal constraints, and atoms that are never stale."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.dictionary.archetypal import RelaxedArchetypal


def disturbed(seed: int, size: float, delta: float = 0.3) -> RelaxedArchetypal:
    """A dictionary that a wild optimiser step has pushed out of its constraints."""
    torch.manual_seed(seed)
    dictionary = RelaxedArchetypal(dim=5, concepts=12, sparsity=2, candidates=7, delta=delta)
    with torch.no_grad():
        for parameter in (dictionary.weights, dictionary.slack, dictionary.log_multiplier):
            parameter.add_(size * torch.randn_like(parameter))
        dictionary.weights[3] = -torch.rand(7) - 0.1
    return dictionary


@settings(max_examples=25, deadline=None)
@example(seed=153, size=100.0, delta=0.3)
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.01, 1.0, 100.0]), delta=st.sampled_from([0.0, 0.3]))
def test_constraints_hold_after_any_step(seed: int, size: float, delta: float) -> None:
    dictionary = disturbed(seed, size, delta)
    dictionary.constrain()
    assert (dictionary.weights >= 0).all()
    torch.testing.assert_close(dictionary.weights.sum(dim=-1), torch.ones(12))
    assert dictionary.slack.norm(dim=-1).max() <= delta + 1e-6
    atoms, multiplier = dictionary.atoms().detach(), dictionary.log_multiplier.detach().exp()
    torch.nn.init.zeros_(dictionary.log_multiplier)
    torch.testing.assert_close(atoms, multiplier * dictionary.atoms())
    # Entries of about 1: multiplied by e^100, what rounding leaves of a sum that cancels would count as a difference.
    torch.testing.assert_close(dictionary.atoms(), dictionary.weights @ dictionary.points + dictionary.slack)


def test_a_row_without_positive_weights_keeps_its_largest() -> None:
    dictionary = disturbed(0, 0.1)
    largest = int(dictionary.weights[3].argmax())
    dictionary.constrain()
    assert dictionary.weights[3].tolist() == [float(i == largest) for i in range(7)]


def test_constraining_twice_is_constraining_once() -> None:
    dictionary = disturbed(1, 1.0)
    dictionary.constrain()
    once = {name: value.clone() for name, value in dictionary.state_dict().items()}
    dictionary.constrain()
    for name, value in dictionary.state_dict().items():
        torch.testing.assert_close(value, once[name])


def test_atoms_follow_every_change_of_the_parameters() -> None:
    dictionary = disturbed(2, 0.1)
    with torch.no_grad():
        before = dictionary.atoms()
        assert dictionary.atoms() is before
        dictionary.log_multiplier.add_(torch.tensor(2.0).log())
        torch.testing.assert_close(dictionary.atoms(), 2 * before)
        dictionary.load_state_dict(disturbed(5, 0.1).state_dict())
        torch.testing.assert_close(dictionary.atoms(), disturbed(5, 0.1).atoms())


def test_atoms_cached_in_inference_mode_serve_gradients_later() -> None:
    dictionary = disturbed(2, 0.1).requires_grad_(False)
    x = torch.randn(3, 5)
    with torch.inference_mode():
        dictionary.reconstruct(x)
    x.requires_grad_()
    dictionary.reconstruct(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_atoms_carry_gradients_to_all_their_parameters() -> None:
    dictionary = disturbed(3, 0.1)
    dictionary.atoms().square().sum().backward()
    for parameter in (dictionary.weights, dictionary.slack, dictionary.log_multiplier):
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-6), (True, 0.02)])
def test_late_gradients_are_those_of_autograd(half: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dictionary.archetypal.BLOCK_ENTRIES", 20)
    dictionary = disturbed(4, 0.3)
    pull = torch.randn(12, 5)
    (dictionary.atoms() * pull).sum().backward()
    expected = {name: value.grad.clone() for name, value in dictionary.named_parameters() if value.grad is not None}
    dictionary.zero_grad()
    (late,) = (group for group in dictionary.parameter_groups() if group.get("late"))
    dictionary.backward_from_atoms(pull)
    formed = [block.clone() for block in dictionary.late_gradients(half)]
    assert [block.shape for block in late["params"]] == [gradient.shape for gradient in formed]
    assert len(formed) > 3 and dictionary.weights.grad is None
    scale = expected["weights"].abs().max()
    torch.testing.assert_close(torch.cat(formed), expected["weights"], rtol=0, atol=float(tolerance * scale))
    torch.testing.assert_close(dictionary.late_square(), expected["weights"].square().sum())
    assert len({block.data_ptr() for block in dictionary.late_gradients(half)}) == 1
    for name in ("slack", "log_multiplier"):
        torch.testing.assert_close(dictionary.get_parameter(name).grad, expected[name])


def test_start_puts_atoms_on_candidates_and_blends_the_rest() -> None:
    dictionary = RelaxedArchetypal(dim=5, concepts=12, sparsity=2, candidates=7)
    points = torch.randn(7, 5)
    dictionary.reset(points, torch.Generator().manual_seed(0))
    atoms = dictionary.atoms().detach()
    torch.testing.assert_close(atoms[:7], points)
    assert torch.cdist(atoms, atoms).add(torch.eye(12) * 9).min() > 0
    torch.testing.assert_close(dictionary.weights.sum(dim=-1), torch.ones(12))


def test_more_concepts_than_tokens_leave_no_zero_atom() -> None:
    dictionary = RelaxedArchetypal(dim=5, concepts=12, sparsity=2)
    tokens = torch.cat([torch.zeros(1, 5), torch.eye(5)[:2], -torch.eye(5)[:2]])
    dictionary.initialise(tokens, torch.Generator().manual_seed(0))
    assert dictionary.atoms().norm(dim=-1).min() > 0.1
