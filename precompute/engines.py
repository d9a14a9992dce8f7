"""Where a run does the work that goes piece by piece: in this process, or on the workers of a Ray cluster.

A piece (a batch to draw, a shard to encode) is a small item that can be pickled. A worker, which can be pickled until
it is called, computes items and writes whole files into the stage's folder. What a file holds depends on its item
alone, so it does not matter which process computes it, nor that one is computed twice. The stage reads the files in
their order.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from types import TracebackType
from typing import Any, Literal, Protocol, get_args

from engine.errors import BlindspotError
from engine.files import name_writer

EngineName = Literal["local", "ray"]
LOST = 5
"""Workers that the same items may lose before they are taken for what kills them."""


class Worker(Protocol):
    """Computes items."""

    def __call__(self, items: Sequence[Any]) -> Iterator[Any]:
        """Compute the items in order, each when the one before was asked for; loads its model when first called."""


class Engine(Protocol):
    """Runs workers; a context manager that lasts for a run of a recipe."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def map(self, worker: Worker, items: Sequence[Any], device: str = "auto", together: int = 1) -> Iterator[Any]:
        """Compute the items; gives what the worker gives, in any order.

        Parameters
        ----------
        worker : what computes them.
        items : each is independent of the others.
        device : what the recipe says where the worker computes.
        together : items that a process takes at a time, at most, if it can prepare one while it computes another.

        Raises
        ------
        BlindspotError
            If a worker raises it, or there is no such device.
        """


class LocalEngine:
    """This process computes all items."""

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, worker: Worker, items: Sequence[Any], device: str = "auto", together: int = 1) -> Iterator[Any]:
        """Compute the items in order."""
        yield from worker(items)


class RayEngine:
    """Actors of Ray compute the items: on the cluster at `RAY_ADDRESS`, or on this machine.

    Every node needs this project installed, and the folders of the recipe and of the atlas under the same paths. An
    actor has a GPU of its own where the cluster has some and the recipe does not say `device: cpu`; otherwise as many
    processors as this process has threads (`OMP_NUM_THREADS`), because sums are rounded differently by other numbers of
    threads. Ray places the actors and hands out the items; one that is lost it starts anew, with the item it was at.
    These are actors of Ray and not a map of Ray Data, which would start its processes anew for every stage.
    """

    def __init__(self) -> None:
        if find_spec("ray") is None:
            raise BlindspotError("--engine ray needs Ray: pip install 'blindspot-atlas[ray]'.")
        self._started = False
        self._actors: dict[str, list[Any]] = {}

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in chain.from_iterable(self._actors.values()):
            ray.kill(actor)
        if self._started:
            ray.shutdown()

    def map(self, worker: Worker, items: Sequence[Any], device: str = "auto", together: int = 1) -> Iterator[Any]:
        """Compute the items on the cluster; what is done is given as it comes."""
        if not items:
            return
        import ray
        from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, WorkerCrashedError
        from ray.util import ActorPool

        actors = self._pool(device)
        size = max(1, min(together, len(items) // (2 * len(actors))))
        runs = [list(items[start : start + size]) for start in range(0, len(items), size)]
        name, sent = uuid.uuid4().hex, ray.put(pickle.dumps(worker))
        try:
            pool = ActorPool(actors)
            for found in pool.map_unordered(lambda actor, run: actor.compute.remote(name, sent, run), runs):
                if isinstance(found, str):
                    raise BlindspotError(found)
                yield from found
        except (ActorUnavailableError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
            raise BlindspotError(
                f"Workers of the Ray cluster ended {LOST + 1} times at the same images ({type(error).__name__}): see "
                "Ray's own logs for why; run the same command to go on."
            ) from error

    def _pool(self, device: str) -> list[Any]:
        """The actors for that device, started when they are first needed, as many as the cluster has room for."""
        import ray
        import torch

        self._connect()
        threads = torch.get_num_threads()
        kind, share, count = _share(device, threads)
        if kind not in self._actors:
            options = {"max_restarts": -1, "max_task_retries": LOST, **share}
            remote = ray.remote(_Actor)
            self._actors[kind] = [remote.options(**options).remote(threads) for _ in range(count)]
        return self._actors[kind]

    def _connect(self) -> None:
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            main = threading.current_thread() is threading.main_thread()
            before = signal.getsignal(signal.SIGTERM) if main else None
            ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
            self._started = True
            if before is not None:  # Ray's own ends the process at once
                signal.signal(signal.SIGTERM, before)


class _Actor:
    """A process of the cluster that computes with one worker after the other."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        name_writer()
        self._name = ""
        self._worker: Worker = _no_worker

    def compute(self, name: str, worker: bytes, items: Sequence[Any]) -> list[Any] | str:
        """What the worker of that name gives for the items, or a sentence on what is wrong with them."""
        if self._name != name:
            self._worker = _no_worker  # the last one's model makes room first
            self._name, self._worker = name, pickle.loads(worker)
        try:
            return [*self._worker(items)]
        except BlindspotError as error:
            return str(error)


def _no_worker(items: Sequence[Any]) -> Iterator[Any]:
    return iter(())


def _share(device: str, threads: int) -> tuple[str, dict[str, int], int]:
    """What kind of actor computes on a device, what one needs of its node, and how many there can be at once."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if device not in ("auto", "cpu") and not gpus:
        raise BlindspotError(f"The device {device} is asked for, and the Ray cluster has no GPU; use device: auto.")
    if device != "cpu" and gpus:
        return "gpu", {"num_gpus": 1, "num_cpus": 0}, gpus
    actors = sum(int(node.get("CPU", 0)) // threads for node in nodes)
    if not actors:
        raise BlindspotError(f"No node of the Ray cluster has {threads} processors: set OMP_NUM_THREADS to fewer.")
    return "cpu", {"num_cpus": threads}, actors


def engine_named(name: str) -> Engine:
    """The engine of that name.

    Raises
    ------
    BlindspotError
        If there is none, or its packages are missing.
    """
    if name not in get_args(EngineName):
        raise BlindspotError(f"There is no engine {name!r}: choose {' or '.join(get_args(EngineName))}.")
    return RayEngine() if name == "ray" else LocalEngine()
