"""Photos are read by threads, a batch at a time, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from fashion_retrieval.errors import InputError
from fashion_retrieval.images.load import ImageInput, load_pixels

if TYPE_CHECKING:
    from fashion_retrieval.images.preprocess import Preprocessing

Result = TypeVar("Result")

_AHEAD = 2
"""Batches that are read while a GPU is busy; a CPU that computes is better left alone."""


def pixel_batches(
    photos: Iterable[tuple[str, ImageInput]], preprocessing: Preprocessing, device: torch.device, *, batch_size: int
) -> Iterator[Tensor]:
    """Photos as the image tower takes them, (b, 3, h, w) float32 on `device`; their files are read by threads.

    Args:
        photos: Each with its name in messages; taken as they are needed.
        preprocessing: The encoder's.
        device: Where its tower is.
        batch_size: The largest b.

    Raises:
        InputError: A photo can't be used; the message begins with its name.
    """

    def read(name: str, photo: ImageInput) -> Tensor:
        try:
            return preprocessing.resize(load_pixels(photo))
        except InputError as error:
            raise type(error)(f"{name}: {error}") from error

    for batch in batches(read, photos, batch_size=batch_size, ahead=0 if device.type == "cpu" else _AHEAD):
        levels = torch.stack(batch)
        cuda = device.type == "cuda"
        there = levels.pin_memory().to(device, non_blocking=True) if cuda else levels.to(device)
        yield preprocessing.normalize(there)


def batches(
    function: Callable[..., Result], items: Iterable[tuple[object, ...]], *, batch_size: int, ahead: int = 0
) -> Iterator[list[Result]]:
    """What `function(*item)` gives for each item, in order, computed by as many threads as torch uses.

    At most `1 + ahead` batches of items are under way or held. Once the caller stops or an item fails, no further items
    are begun.

    Args:
        function: Called by several threads at once.
        items: Arguments; taken by the calling thread, as they are needed.
        batch_size: Items a batch.
        ahead: Batches to begin while the caller is busy with one.

    Raises:
        Exception: What `function` raised, when its batch is asked for; or what taking an item raised, after the results
            of those before it.
    """
    remaining = iter(items)
    waiting: deque[list[Future[Result]]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="photos")
    try:
        while True:
            while failure is None and len(waiting) <= ahead:
                batch: list[Future[Result]] = []
                try:
                    batch.extend(pool.submit(function, *item) for item in islice(remaining, batch_size))
                except Exception as error:
                    failure = error
                if not batch:
                    break
                waiting.append(batch)
            if not waiting:
                break
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure
