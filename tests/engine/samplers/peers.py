"""What every optimising peer is tried with."""

import torch


def redness(images):
    """How much redder than green and blue, in [-1, 1]."""
    return (images[:, 0] - images[:, 1:].mean(dim=1)).mean(dim=(1, 2))


def assert_batches_agree(sampler, score=redness):
    """Sample i is the same in any batch, and another seed gives other images."""
    three, one = sampler.sample(score, 3, seed=3), sampler.sample(score, 1, seed=3)
    assert torch.equal(three.images[:1], one.images)
    assert not torch.allclose(sampler.sample(score, 1, seed=4).images, one.images, atol=1e-2)


def assert_previews(sampler, steps, score=redness):
    """Every step is heard of with n images, and the listener can cancel."""
    from engine.jobs import Cancelled

    events = []
    samples = sampler.sample(score, 3, on_step=events.append)
    assert [event.step for event in events] == list(range(1, steps + 1))
    assert {event.steps for event in events} == {steps}
    assert all(event.images.shape == samples.images.shape for event in events)
    assert not any(event.images.requires_grad for event in events)
    torch.testing.assert_close(torch.stack([event.scores for event in events]), samples.trace)
    torch.testing.assert_close(score(samples.images), samples.scores)
    try:
        sampler.sample(score, 1, on_step=lambda event: event.step < 2)
    except Cancelled:
        return
    raise AssertionError("the listener's False did not cancel")
