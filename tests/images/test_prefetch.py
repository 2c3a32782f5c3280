"""Photos by the batch: in order, in bounded memory, and no threads left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from fashion_retrieval.errors import ImageError
from fashion_retrieval.images.load import ImageInput, load_image
from fashion_retrieval.images.prefetch import batches, pixel_batches
from fashion_retrieval.images.preprocess import Preprocessing
from tests.support.tiny import drawn_photo

SMALL = Preprocessing(size=(16, 12), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CPU = torch.device("cpu")


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


def test_photos_become_what_the_encoder_takes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        drawn_photo((40 + number, 30), seed=number).save(path)
    named = [(path.name, path) for path in paths]
    found = list(pixel_batches(named, SMALL, CPU, batch_size=2))
    assert [len(batch) for batch in found] == [2, 2, 1]
    plain = torch.stack([SMALL(load_image(path)) for path in paths])
    torch.testing.assert_close(torch.cat(found), plain, rtol=0, atol=0)


def test_the_message_begins_with_the_name(tmp_path: Path) -> None:
    drawn_photo().save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:400])
    named = [("images[0]", tmp_path / "a.jpg"), ("images[1]", tmp_path / "b.jpg")]
    stream = pixel_batches(named, SMALL, CPU, batch_size=1)
    assert next(stream).shape == (1, 3, 16, 12)
    with pytest.raises(ImageError, match=r"^images\[1\]: photo .*b.jpg' can't be decoded"):
        next(stream)


def test_an_opened_photo_may_stand_in_a_list_many_times(tmp_path: Path) -> None:
    drawn_photo((400, 300)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened, (tmp_path / "a.jpg").open("rb") as stream:
        named: list[tuple[str, ImageInput]] = [("", opened), ("", stream)] * 12
        (found,) = pixel_batches(named, SMALL, CPU, batch_size=24)
    assert (found == found[0]).all()
