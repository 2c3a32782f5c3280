"""One model for many clients: requests wait in a bounded queue, are decoded by threads and computed in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval._utils.cpu import threads
from fashion_retrieval.errors import FashionRetrievalError, InputError
from fashion_retrieval.images.load import decode
from fashion_retrieval.images.pixels import Pixels
from fashion_retrieval.images.prefetch import MOST_BYTES
from fashion_retrieval.images.regions import check_boxes
from fashion_retrieval.inference.composition import references_of
from fashion_retrieval.inference.pipeline import encode_levels
from fashion_retrieval.inference.recognition import find_photo

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel, TaxonomyInput
    from fashion_retrieval.results import Explanation, Recognition, Reference

Result = TypeVar("Result")

_WAIT = 0.004
"""Seconds that a batch waits for photos that are being decoded; where none is, it does not wait."""


class BusyError(FashionRetrievalError, RuntimeError):
    """The queue is full, or the service is about to end."""


def forget(error: BaseException) -> None:
    """Drop an error's tracebacks: their frames hold photos, which would stay until Python's collector comes, late."""
    error.__traceback__ = None
    for cause in filter(None, (error.__cause__, error.__context__)):
        forget(cause)


@dataclass(eq=False, slots=True)
class _Job:
    """One photo, text or call: `read` makes the item, in a thread; jobs of one `key` are computed together."""

    key: tuple[Hashable, ...]
    read: Callable[[], Any] | None
    compute: Callable[[list[Any]], Sequence[Any]]
    future: Future[Any]
    item: Any = None
    nbytes: int = 0


class Engine:
    """A model with one thread that computes; what is asked of it comes back as futures.

    Photos are decoded by as many threads as torch uses, while the model computes. At most `queue` photos, texts and
    calls are under way; who comes then gets a `BusyError`. A future that is cancelled leaves the queue. Whatever one
    photo raises, others of its batch get their results.

    Attributes:
        model: The model.
        queue: How many may be under way.
        max_pixels: Photos with more pixels are refused before they are decoded.
        on_batch: Called with the kind and the size of each batch that is computed.
    """

    def __init__(
        self,
        model: FashionModel,
        *,
        queue: int = 64,
        batch_size: int = 16,
        max_pixels: int | None = None,
        on_batch: Callable[[str, int], None] | None = None,
    ) -> None:
        self.model = model
        self.queue = queue
        self.max_pixels = max_pixels
        self.on_batch = on_batch
        self._batch_size = batch_size
        self._changed = Condition()
        self._jobs: deque[_Job] = deque()  # ready to be computed
        self._under_way = self._reading = self._held = 0
        self._closed = False
        self._readers = ThreadPoolExecutor(threads(), thread_name_prefix="photos")
        self._worker = Thread(target=self._work, name="model", daemon=True)
        self._worker.start()

    @property
    def under_way(self) -> int:
        """How many photos, texts and calls are waiting or being computed."""
        return self._under_way

    def recognize(
        self,
        content: bytes,
        name: str,
        *,
        boxes: ArrayLike | None = None,
        taxonomy: TaxonomyInput = None,
        top_k: int = 3,
    ) -> Future[Recognition]:
        """`FashionModel.recognize` of a photo's file, without the photo in the result; errors call it `name`."""
        recognizer = self.model.recognizer(taxonomy, top_k)

        def read() -> tuple[Pixels, NDArray[np.float32] | None]:
            pixels = decode(content, name, max_pixels=self.max_pixels).upright()
            return pixels, None if boxes is None else check_boxes(boxes, pixels.width, pixels.height)

        def compute(items: list[tuple[Pixels, NDArray[np.float32] | None]]) -> list[Recognition]:
            photos = [find_photo(pixels, given, self.model.segmenter) for pixels, given in items]
            return [found.compact() for found in recognizer.recognize(photos)]

        # Recognizers of one taxonomy share what they have prepared, and differ by `top_k`.
        return self._submit(("recognize", id(recognizer.taxonomy), top_k), read, compute)

    def encode_image(self, content: bytes, name: str) -> Future[NDArray[np.float32]]:
        """The embedding of a photo's file, (D,) float32, L2-normalized."""
        encoder, device = self.model.encoder, self.model.device

        def read() -> Any:  # noqa: ANN401  # levels as `resize` leaves them
            return encoder.preprocessing.resize(decode(content, name, max_pixels=self.max_pixels))

        return self._submit(("image",), read, lambda levels: list(encode_levels(encoder, device, levels)))

    def encode_text(self, text: str) -> Future[NDArray[np.float32]]:
        """The embedding of a text, (D,) float32, L2-normalized."""
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"a text must not be empty, got {text!r:.80}")
        return self._submit(("text",), None, lambda texts: list(self.model.encode(texts=texts)), text)

    def compose(
        self, content: bytes, name: str, text: str, *, text_weight: float | None = None
    ) -> Future[NDArray[np.float32]]:
        """The query of a photo and a text, (D,) float32, L2-normalized."""

        def compute(references: list[Reference], texts: list[str]) -> list[NDArray[np.float32]]:
            return list(self.model.compose(references, texts, text_weight=text_weight))

        return self._ask(("compose", text_weight), content, name, text, compute)

    def explain(self, content: bytes, name: str, text: str, *, text_weight: float | None = None) -> Future[Explanation]:
        """`FashionModel.explain` of a photo and a text."""

        def compute(references: list[Reference], texts: list[str]) -> list[Explanation]:
            pairs = zip(references, texts, strict=True)
            return [self.model.explain(*pair, text_weight=text_weight) for pair in pairs]

        return self._ask(("explain", text_weight), content, name, text, compute)

    def run(self, function: Callable[[], Result]) -> Future[Result]:
        """What a function returns that uses the model, called in the model's thread."""
        return self._submit(("call", object()), None, lambda _: [function()])

    def close(self) -> None:
        """Finish what is under way and refuse the rest."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._readers.shutdown()
        self._worker.join()

    def _ask(
        self,
        key: tuple[Hashable, ...],
        content: bytes,
        name: str,
        text: str,
        compute: Callable[[list[Reference], list[str]], Sequence[Any]],
    ) -> Future[Any]:
        """What is computed of a photo's file as a reference and of a text; errors call the photo `name`."""
        encoder, device = self.model.encoder, self.model.device

        def read() -> Any:  # noqa: ANN401  # levels and text
            return encoder.preprocessing.resize(decode(content, name, max_pixels=self.max_pixels)), text

        def encode(items: list[Any]) -> Sequence[Any]:
            references = references_of(encoder, device, [(levels, name) for levels, _ in items])
            return compute(references, [text for _, text in items])

        return self._submit(key, read, encode)

    def _submit(
        self,
        key: tuple[Hashable, ...],
        read: Callable[[], Any] | None,
        compute: Callable[[list[Any]], Sequence[Any]],
        item: Any = None,  # noqa: ANN401  # whatever `compute` takes
    ) -> Future[Any]:
        job = _Job(key, read, compute, Future(), item)
        with self._changed:
            if self._closed:
                raise BusyError("the service is about to end; ask again in a moment")
            if self._under_way >= self.queue:
                raise BusyError(f"the queue is full, {self.queue} are under way; ask again in a moment")
            self._under_way += 1
            job.future.add_done_callback(lambda _: self._leave(job))
            if read is None:
                self._jobs.append(job)
            else:
                self._reading += 1
                self._readers.submit(self._read, job)
            self._changed.notify_all()
        return job.future

    def _leave(self, job: _Job) -> None:
        with self._changed:
            self._under_way -= 1
            self._held -= job.nbytes
            job.item = None  # job and future hold each other until Python's collector comes, late
            if job in self._jobs:  # canceled
                self._jobs.remove(job)
            self._changed.notify_all()

    def _read(self, job: _Job) -> None:
        """Decode a photo once there is room for it: what waits for the model is about 256 MiB."""
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._held < MOST_BYTES or job.future.done())
            item = None if job.future.done() or job.read is None else job.read()
        except BaseException as error:  # or nobody would learn of it
            if isinstance(error, FashionRetrievalError):  # of others the log tells where
                forget(error)
            with suppress(InvalidStateError):  # canceled in between
                job.future.set_exception(error)
        else:
            nbytes = getattr(item[0] if isinstance(item, tuple) else item, "nbytes", 0)
            with self._changed:
                if not job.future.done():
                    job.item, job.nbytes = item, nbytes
                    self._held += nbytes
                    self._jobs.append(job)
        finally:
            job.read = None  # it holds the photo's file
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    def _work(self) -> None:
        while self._step():  # which lets go of its batch: photos must not stay until others come
            pass

    def _step(self) -> bool:
        batch = self._next()
        live = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if live:
            if self.on_batch:  # before the results, so that who has one sees its batch counted
                self.on_batch(str(live[0].key[0]), len(live))
            self._compute(live)
        return bool(batch)

    def _next(self) -> list[_Job]:
        """The jobs to compute next, of one kind, the oldest's; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or (self._closed and not self._reading))
            if not self._jobs:
                return []
            key = self._jobs[0].key

            def alike() -> list[_Job]:
                return [job for job in self._jobs if job.key == key][: self._batch_size]

            self._changed.wait_for(lambda: not self._reading or len(alike()) == self._batch_size, _WAIT)
            batch = alike()
            for job in batch:
                self._jobs.remove(job)
            return batch or self._next()  # all were canceled

    def _compute(self, batch: list[_Job]) -> None:
        try:
            results = batch[0].compute([job.item for job in batch])
        except BaseException as error:  # or the model's thread would end, and every future wait forever
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            for job in batch if len(batch) > 1 else ():  # the others get their results
                self._compute([job])
            return
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)
