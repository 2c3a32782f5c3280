"""Photos by the batch: in order, in bounded memory, and no threads left behind."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.images import prefetch
from fashion_retrieval.images.inputs import DeferredFile, ImageInput
from fashion_retrieval.images.load import load_pixels
from fashion_retrieval.images.pixels import Pixels
from fashion_retrieval.images.prefetch import ReadPhoto, batches, fetch_ahead, read_photos
from tests.support.tiny import drawn_photo


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("photos")]


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_results_come_in_order(ahead: int, count: int) -> None:
    first_of_all = threading.Event()

    def square(number: int) -> int:
        if number == 0 and count > 1:
            assert first_of_all.wait(10)  # the second is done before the first
        if number == 1:
            first_of_all.set()
        return number**2

    found = list(batches(square, ((n,) for n in range(count)), batch_size=4, ahead=ahead))
    assert [value for batch in found for value in batch] == [n**2 for n in range(count)]
    assert [len(batch) for batch in found] == [4] * (count // 4) + [count % 4] * bool(count % 4)


@pytest.mark.parametrize(("ahead", "held"), [(0, 5), (2, 15)])
def test_no_more_items_are_taken_than_batches_are_held(ahead: int, held: int) -> None:
    taken: list[int] = []
    source = ((taken.append(n) or n,) for n in range(1000))  # type: ignore[func-returns-value]
    stream = batches(lambda n: n, source, batch_size=5, ahead=ahead)
    for done in range(3):
        assert next(stream) == list(range(5 * done, 5 * done + 5))
        assert len(taken) == held + 5 * done
    stream.close()  # type: ignore[attr-defined]
    assert len(taken) == held + 10


def test_what_fails_is_raised_when_its_batch_is_asked_for() -> None:
    def halve(number: int) -> int:
        if number == 5:
            raise KeyError(number)
        return number // 2

    stream = batches(halve, ((n,) for n in range(100)), batch_size=2, ahead=3)
    assert [next(stream), next(stream)] == [[0, 0], [1, 1]]
    with pytest.raises(KeyError, match="5"):
        next(stream)


def test_what_came_before_a_failing_source_is_not_lost() -> None:
    def source() -> Iterator[tuple[int]]:
        yield from ((n,) for n in range(5))
        raise OSError("the disk is gone")

    stream = batches(lambda n: n, source(), batch_size=3, ahead=2)
    assert [next(stream), next(stream)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def read(images: Iterable[ImageInput | DeferredFile], batch_size: int = 4, **options: Any) -> list[ReadPhoto[Any]]:
    """All photos of `read_photos`, each as its pixels."""
    settings = {"ahead": 0, "skip": True, "digests": True} | options
    return [p for batch in read_photos(images, Pixels.srgb, batch_size=batch_size, **settings) for p in batch]


def drawn_files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        drawn_photo((40 + number, 30), seed=number).save(path)
    return paths


def test_read_photos_gives_pixels_and_digests_in_order(tmp_path: Path) -> None:
    paths = drawn_files(tmp_path, 5)
    found = read(paths, 2)
    assert [photo.index for photo in found] == [0, 1, 2, 3, 4]
    for photo, path in zip(found, paths, strict=True):
        assert photo.image == path
        assert photo.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(photo.content, load_pixels(path))


def test_a_photo_without_a_file_has_the_digest_of_its_size_and_pixels(tmp_path: Path) -> None:
    photo = drawn_photo((40, 30))
    expected = hashlib.sha256(b"(40, 30)" + photo.tobytes()).hexdigest()
    photo.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        found = read([photo, np.array(photo), torch.from_numpy(np.array(photo)).permute(2, 0, 1), opened])
    assert [photo.digest for photo in found] == [expected] * 4


@pytest.mark.parametrize("given", [str, Path, Path.read_bytes, lambda path: BytesIO(path.read_bytes())])
def test_a_photo_with_a_file_has_the_digest_of_its_bytes(tmp_path: Path, given: Callable[[Path], Any]) -> None:
    (path,) = drawn_files(tmp_path, 1)
    assert read([given(path)])[0].digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, opened = drawn_files(tmp_path, 3), []
    reading = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *given, **more: opened.append(path) or reading(path, *given, **more))
    read(paths)
    assert sorted(opened) == paths


def test_photos_that_are_not_wanted_are_not_decoded(tmp_path: Path) -> None:
    paths = drawn_files(tmp_path, 3)
    (tmp_path / "1.jpg").write_bytes(b"no photo, and nobody decodes it")
    unwanted = hashlib.sha256(paths[1].read_bytes()).hexdigest()
    found = read(paths, wanted=lambda index, digest: (index, digest) != (1, unwanted))
    assert [photo.content is None for photo in found] == [False, True, False]
    assert found[1].digest == unwanted
    assert found[1].error is None


def test_errors_are_handed_over_where_they_are_skipped(tmp_path: Path) -> None:
    paths = drawn_files(tmp_path, 4)
    paths[1].write_bytes(paths[1].read_bytes()[:400])
    paths[2].unlink()
    found = read([*paths, 7])  # type: ignore[list-item]
    assert [type(photo.error) for photo in found] == [type(None), ImageError, ImageError, type(None), InputError]
    assert "1.jpg' can't be decoded" in str(found[1].error)
    assert found[1].digest == hashlib.sha256(paths[1].read_bytes()).hexdigest()
    assert found[2].digest is None
    assert [photo.name for photo in found] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "photo 4"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_what_came_before_an_error_is_handed_over_and_then_it_is_raised(tmp_path: Path, batch_size: int) -> None:
    paths = drawn_files(tmp_path, 6)
    paths[3].write_bytes(b"no photo")
    stream = read_photos(
        paths,
        lambda photo: photo.width,
        batch_size=batch_size,
        ahead=0,
        skip=False,
        label=lambda index: f"images[{index}]",
    )
    found: list[ReadPhoto[int]] = []
    with pytest.raises(ImageError, match=r"^images\[3\]: photo .*3.jpg' is not a photo"):
        found.extend(photo for batch in stream for photo in batch)
    assert [photo.index for photo in found] == [0, 1, 2]


def test_no_thread_is_left_when_the_reader_is_closed(tmp_path: Path) -> None:
    paths = drawn_files(tmp_path, 2) * 50
    stream = read_photos(paths, lambda photo: photo.width, batch_size=4, ahead=2, skip=False)
    assert len(next(stream)) == 4
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("photos")]


def test_an_opened_photo_may_stand_in_a_list_many_times(tmp_path: Path) -> None:
    drawn_photo((400, 300)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened, (tmp_path / "a.jpg").open("rb") as stream:
        found = read([opened, stream] * 12, batch_size=24)
    assert all((photo.content == found[0].content).all() for photo in found)


def test_deferred_files_are_read_ahead_once_and_in_order(tmp_path: Path) -> None:
    content = drawn_files(tmp_path, 1)[0].read_bytes()
    begun: list[int] = []

    def file(number: int) -> DeferredFile:
        def load() -> bytes:
            begun.append(number)
            if number == 5:
                raise ImageError("the store is gone")
            return content

        return DeferredFile(f"{number}.jpg", load)

    with fetch_ahead(map(file, range(12)), threads=3, ahead=4) as ahead:
        found = read(ahead, batch_size=2)
    assert sorted(begun) == list(range(12))
    assert [photo.name for photo in found] == [f"{number}.jpg" for number in range(12)]
    assert [str(photo.error) for photo in found if photo.error] == ["the store is gone"]


def test_files_are_read_at_most_so_far_ahead() -> None:
    taken: list[int] = []
    files = (taken.append(n) or DeferredFile(str(n), bytes) for n in range(100))  # type: ignore[func-returns-value]
    with fetch_ahead(files, threads=2, ahead=5) as ahead:
        assert [next(ahead).name, next(ahead).name] == ["0", "1"]
        assert len(taken) == 7
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("files")]


def test_files_that_wait_when_the_list_ends_are_read_all_the_same() -> None:
    last = threading.Event()

    def slowly() -> bytes:
        assert last.wait(10)
        return b""

    with fetch_ahead([DeferredFile("a", slowly), DeferredFile("b", bytes)], threads=1, ahead=5) as ahead:
        first, second = list(ahead)
        last.set()
        assert [first.read(), second.read()] == [b"", b""]


@pytest.mark.parametrize("ahead", [0, 2])
def test_large_results_come_in_batches_of_bounded_bytes(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10_000)
    held, most = 0, 0
    lock = threading.Lock()

    class Held:
        nbytes = 4_000

        def __init__(self, number: int) -> None:
            nonlocal held, most
            self.number = number
            with lock:
                held += 1
                most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            with lock:
                held -= 1

    sizes, numbers = [], []
    for batch in batches(Held, ((n,) for n in range(20)), batch_size=16, ahead=ahead):
        sizes.append(len(batch))
        numbers += [one.number for one in batch]
        del batch
    assert numbers == list(range(20))
    assert max(sizes) <= 2
    assert most <= 2 + torch.get_num_threads()  # before the first is known, one a thread


def test_a_result_beyond_the_bound_comes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    found = list(batches(lambda n: np.zeros(100), ((n,) for n in range(5)), batch_size=4))
    assert [len(batch) for batch in found] == [1] * 5
