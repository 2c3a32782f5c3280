"""The one reader of photos: each file is read once, hashed and decoded by threads, a batch at a time, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL import Image

from fashion_retrieval._utils.cpu import threads as cpu_threads
from fashion_retrieval._utils.forks import check_fork
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.images.inputs import DeferredFile, ImageInput, called, describe, read_content
from fashion_retrieval.images.load import decode, digest_of
from fashion_retrieval.images.pixels import Pixels

Result = TypeVar("Result")

MOST_BYTES = 256 << 20
"""Of what a batch holds, by its results' `nbytes`; a batch that has as much is handed over as it is."""


@dataclass(frozen=True, slots=True)
class ReadPhoto(Generic[Result]):
    """One photo that the reader is through with; `index` is its position in the input, from 0.

    `digest` is `digest_of` the photo, None where it was not asked for or can't be read. `content` is what `finish` made
    of the pixels, None after an error, and for a photo that is not wanted.
    """

    index: int
    image: ImageInput | DeferredFile
    digest: str | None
    content: Result | None
    error: FashionRetrievalError | None = None

    @property
    def name(self) -> str:
        """A short name of the photo: its file name or, where it has none, its position."""
        return describe(self.image) or f"photo {self.index}"

    @property
    def nbytes(self) -> int:
        """Of the content, where that is an array or knows it."""
        return int(getattr(self.content, "nbytes", 0))


def read_photos(
    images: Iterable[ImageInput | DeferredFile],
    finish: Callable[[Pixels], Result],
    *,
    batch_size: int,
    ahead: int,
    skip: bool,
    label: Callable[[int], str] | None = None,
    max_pixels: int | None = None,
    digests: bool = False,
    wanted: Callable[[int, str], bool] | None = None,
) -> Generator[list[ReadPhoto[Result]]]:
    """Read photos by threads; batch by batch, in order.

    `images` are taken by the calling thread, as they are needed. The threads call `finish` with the pixels, and
    `wanted` with position and digest; a photo for which that is false is not decoded. With `skip`, photos that can't be
    read come with their error; otherwise the first one's is raised, after those before it, and begins with its `label`,
    "images[3]". What `images`, `finish` or `wanted` raise is raised, too.

    A batch holds `batch_size` photos, or fewer where they are large. Besides the one that is handed over, `ahead` of
    them are read, and large photos under way, one a thread. Once the caller stops, no thread is left.
    """

    def read(index: int, image: ImageInput | DeferredFile) -> ReadPhoto[Result]:
        digest = None
        try:
            given, name = read_content(image), called(image)
            content = decode(given, name, max_pixels=max_pixels) if isinstance(given, Image.Image) else given
            if digests or wanted:
                digest = digest_of(content)
                if wanted and not wanted(index, digest):
                    return ReadPhoto(index, image, digest, None)
            pixels = decode(content, name, max_pixels=max_pixels) if isinstance(content, bytes) else content
            return ReadPhoto(index, image, digest, finish(pixels))
        except FashionRetrievalError as error:
            return ReadPhoto(index, image, digest, None, error)

    with closing(batches(read, enumerate(images), batch_size=batch_size, ahead=ahead)) as stream:
        for batch in stream:
            failed = None if skip else next((photo for photo in batch if photo.error), None)
            if failed is None or failed.error is None:
                yield batch
                continue
            if before := batch[: batch.index(failed)]:
                yield before
            if label is None:
                raise failed.error
            raise type(failed.error)(f"{label(failed.index)}: {failed.error}") from failed.error


@contextmanager
def fetch_ahead(files: Iterable[DeferredFile], *, threads: int, ahead: int) -> Iterator[Iterator[DeferredFile]]:
    """Within it files are read before they are asked for, `threads` at a time and at most `ahead` of them; in order.

    At its end, files that nobody waits for are not begun any more, and no thread is left.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="files")

    def begun() -> Iterator[DeferredFile]:
        waiting: deque[DeferredFile] = deque()
        for file in files:
            waiting.append(DeferredFile(file.name, pool.submit(file.read).result))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting

    try:
        yield begun()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(
    function: Callable[..., Result], items: Iterable[tuple[object, ...]], *, batch_size: int, ahead: int = 0
) -> Generator[list[Result]]:
    """What `function(*item)` returns for each item, in order, computed by as many threads as the model uses.

    Items are taken by the calling thread, as they are needed; `ahead` batches are begun while it is busy with one. At
    most `1 + ahead` batches are under way or held, and no more than `MOST_BYTES` of results as large as the largest of
    late, by their `nbytes`; one at least. Once the caller stops or an item fails, no further items are begun. What
    `function` raised is raised when its batch is asked for; what taking an item raised, after those before it.
    """
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque()
    batch: list[Result] = []
    failure: Exception | None = None
    threads = cpu_threads()
    most, fit, largest, ended = batch_size * (1 + ahead), threads, 1, False
    pool = ThreadPoolExecutor(threads, thread_name_prefix="photos")
    try:
        while True:
            while not ended and len(batch) + len(waiting) < min(most, fit):
                try:
                    waiting.append(pool.submit(function, *next(remaining)))
                except StopIteration:
                    ended = True
                except Exception as error:
                    failure, ended = error, True
            if not waiting:
                break
            check_fork()  # the pool's threads are the parent's
            batch.append(waiting.popleft().result())
            largest = max(largest, getattr(batch[-1], "nbytes", 0))
            fit = max(1, MOST_BYTES // largest)
            if len(batch) >= min(batch_size, fit):
                largest = max(1, *(getattr(result, "nbytes", 0) for result in batch))
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure
