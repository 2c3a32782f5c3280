"""Shards encoded by workers on a Ray cluster, each with a model of its own.

The workers are actors, not Ray Data's datasets: a shard of the plan is the unit that is named, retried and resumed, and
a worker writes it, while a dataset cuts and names its output by its own tasks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from fashion_retrieval.errors import FashionRetrievalError, MissingExtraError, ShardError
from fashion_retrieval.shards.manifest import Manifest, Shard, Summary

if TYPE_CHECKING:
    from fashion_retrieval.shards.worker import Identity, ShardWorker

_CPUS = 4
"""CPUs of a worker without a GPU, where the number of workers is not given."""
_RETRIES = 3
"""How often a shard is tried again after its worker died."""
_SKIP, _NOISE = "RAY_DEDUP_LOGS_SKIP_REGEX", r"A worker died or was killed while|Task \w+\.(identity|encode) failed"
"""Lines of Ray about workers that its own setting keeps off the terminal."""
_MAX_LOST = 3
"""After more than this many shards were given up, each after its retries, the run ends."""


class RayPool:
    """Workers on the cluster that Ray finds (RAY_ADDRESS, `ray start` on this machine) or else starts here.

    A context manager: at its end the workers end, and the cluster if it was started here. Each of the `workers` is made
    with the attributes of `worker`, and has a GPU with `gpus`, where there are any; how many is as in `divide`.
    """

    def __init__(self, worker: ShardWorker, workers: int | None, *, gpus: bool) -> None:
        self._ray: Any = _import_ray()
        self._worker = worker
        self._workers = workers
        self._gpus = gpus
        self._actors: list[Any] = []

    def __enter__(self) -> RayPool:
        self._started = not self._ray.is_initialized()
        if self._started:
            try:
                self._ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
            except (ConnectionError, RuntimeError, OSError) as error:
                told = f"no Ray cluster can be reached or started ({_line(error)}); see RAY_ADDRESS"
                raise ShardError(told) from error
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        number, cpus, gpus = divide(nodes, self._workers, gpus=self._gpus)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": _RETRIES}
        kind = self._ray.remote(**options)(type(self._worker))
        self._actors = [kind.remote(**vars(self._worker)) for _ in range(number)]
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()

    def identity(self) -> Identity:
        """The model of the workers, from the first that is ready; any of our errors where none can start."""
        ready, _ = self._ray.wait([actor.identity.remote() for actor in self._actors])
        try:
            return cast("Identity", self._ray.get(ready[0]))
        except self._ray.exceptions.RayError as error:
            raise _to_ours(error, "no worker could start") from error

    def encode_all(self, shards: Iterable[Shard], manifest: Manifest) -> Iterator[Summary]:
        """Encode the shards; yields their summaries as they are completed.

        A worker that dies is started again, and so is its shard. After an error, the shards at work are completed
        before it is raised: of an image that is not to be skipped, or of a shard that was given up.
        """
        coming, ended = iter(shards), False
        # A worker gets one shard at a time, so that only that one is lost with it, and the first one when its model is
        # loaded, so that no shard waits for a worker without a place on the cluster.
        starting = {actor.identity.remote(): actor for actor in self._actors}
        at_work: dict[Any, tuple[Any, Shard]] = {}
        faults: dict[int, FashionRetrievalError] = {}
        while at_work or (starting and not ended):
            (reference,), _ = self._ray.wait([*starting, *at_work])
            actor, shard = at_work.pop(reference) if reference in at_work else (starting.pop(reference), None)
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                place = shard.index if shard else -1
                faults[place] = _to_ours(error, f"shard {place} was given up" if shard else "a worker could not start")
                died = not isinstance(error, self._ray.exceptions.RayTaskError)
                ended = ended or not (died and shard) or len(faults) > _MAX_LOST
                if not ended:
                    starting[actor.identity.remote()] = actor
                continue
            if shard:
                yield result
            given = None if ended else next(coming, None)
            if given:
                at_work[actor.encode.remote(given, manifest)] = (actor, given)
            ended = given is None
        if faults:
            raise faults[min(faults)]


def _import_ray() -> ModuleType:
    before = os.environ.get(_SKIP)
    os.environ.setdefault(_SKIP, _NOISE)  # Ray reads it once, when it is first imported
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("engine 'ray' needs Ray; pip install 'fashion-retrieval[bulk]'") from error
    finally:
        if before is None:
            del os.environ[_SKIP]
    return ray


def divide(nodes: Sequence[Mapping[str, float]], workers: int | None, *, gpus: bool) -> tuple[int, int, int]:
    """How many workers a cluster gets, and the CPUs and GPUs of each; nodes name each machine's "CPU" and "GPU".

    Where the number is not given, it is one for each GPU or, where there is none, for every `_CPUS` CPUs.
    """
    with_gpus = [node for node in nodes if node.get("GPU")] if gpus else []
    cpus = [int(node["CPU"]) for node in with_gpus or nodes if node.get("CPU")] or [1]
    found = sum(int(node["GPU"]) for node in with_gpus)
    number = workers or found or sum(max(1, count // _CPUS) for count in cpus)
    return number, max(1, min(sum(cpus) // number, *cpus)), int(found > 0)


def _to_ours(error: Exception, what: str) -> FashionRetrievalError:
    """The error that a worker raised, if it is one of ours, else a `ShardError` with what Ray says."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, FashionRetrievalError):
        return cause
    remedy = "look for a photo that breaks its decoder, or give workers more memory; the same call then goes on"
    return ShardError(f"{what} ({_line(cause or error)}); {remedy}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
