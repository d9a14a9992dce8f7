"""Samples drawn side by side: the same results, the caller's modes, and errors that keep nothing alive."""

import gc
import os
import signal
import threading
import time
import weakref

import pytest
import torch

from engine.samplers.execution import MAX_THREADS, parallel_map


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads):
    def slow(item):
        time.sleep(0.02 if item == 0 else 0)
        return item

    assert parallel_map(slow, range(9)) == list(range(9))


def test_every_item_gets_the_same_share_of_the_threads_and_the_caller_keeps_its_own(threads):
    share = threads // min(threads, MAX_THREADS)
    for count in (1, 2, 7):
        assert parallel_map(lambda _: torch.get_num_threads(), range(count)) == [share] * count
    assert torch.get_num_threads() == threads
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start(), later.join()
    assert seen == [threads]


def test_the_gradient_mode_is_the_caller_s(threads):
    with torch.no_grad():
        assert parallel_map(lambda _: torch.is_grad_enabled(), range(3)) == [False] * 3
    assert parallel_map(lambda _: torch.is_grad_enabled(), range(3)) == [True] * 3


def test_threads_work_at_the_same_time():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=20)
        parallel_map(lambda _: meeting.wait(), range(2))
    finally:
        torch.set_num_threads(before)


def test_the_first_error_is_raised_when_nothing_runs_any_more(threads):
    running = []

    def work(item):
        running.append(item)
        try:
            if item == 1:
                raise ValueError("item 1")
            time.sleep(0.02)
        finally:
            running.remove(item)

    with pytest.raises(ValueError, match="item 1"):
        parallel_map(work, range(8))
    assert running == []


def test_an_error_keeps_no_tensor_alive(threads):
    class Large:
        pass

    alive = []

    def work(item):
        large = Large()
        alive.append(weakref.ref(large))
        raise RuntimeError("out of memory")

    gc.disable()
    try:
        with pytest.raises(RuntimeError):
            parallel_map(work, range(4))
        for _ in range(50):
            if not any(one() for one in alive):
                break
            time.sleep(0.01)
        assert not any(one() for one in alive)
    finally:
        gc.enable()


def test_ctrl_c_leaves_undone_what_has_not_begun(threads):
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.05)

    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        parallel_map(work, range(200))
    time.sleep(0.2)
    at_the_end = len(begun)
    time.sleep(0.2)
    assert at_the_end == len(begun) < 100
