"""The engine: one model for many clients."""

from __future__ import annotations

import random
import time
import weakref
from concurrent.futures import CancelledError
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.serve import engine as engine_module
from fashion_retrieval.serve.engine import BusyError, Engine
from tests.serve.conftest import alike, photo_file


def blocked(engine: Engine) -> tuple[Event, Any]:
    """The model's thread waits until the event is set."""
    go, begun = Event(), Event()

    def wait() -> None:
        begun.set()
        assert go.wait(30)

    future = engine.run(wait)
    assert begun.wait(30)
    return go, future


def test_results_are_those_of_the_model(engine: Engine, model: FashionModel) -> None:
    photos = [photo_file(number) for number in range(6)]
    found = [engine.recognize(photo, f"{n}.png", top_k=2) for n, photo in enumerate(photos)]
    rows = [engine.encode_image(photo, "photo") for photo in photos]
    texts = [engine.encode_text(text) for text in ("a red shirt", "a blue shirt")]
    composed = engine.compose(photos[0], "photo", "in blue")
    expected = model.recognize_many(photos, top_k=2, segmenter="auto")
    assert alike([one.result().to_dict()["garments"] for one in found], [one.to_dict()["garments"] for one in expected])
    np.testing.assert_allclose([row.result() for row in rows], model.encode(images=photos), atol=1e-4)
    np.testing.assert_allclose(
        [r.result() for r in texts], model.encode(texts=["a red shirt", "a blue shirt"]), atol=1e-4
    )
    np.testing.assert_allclose([composed.result()], model.compose(photos[0], "in blue"), atol=1e-4)
    assert found[0].result().image is None
    box = [[10.0, 20.0, 150.0, 200.0]]
    (garment,) = engine.recognize(photos[1], "1.png", boxes=box).result().garments
    assert garment.to_dict() == model.recognize(photos[1], boxes=box).garments[0].to_dict()


def test_what_waits_is_computed_together(model: FashionModel) -> None:
    batches: list[tuple[str, int]] = []
    engine = Engine(model, batch_size=4, on_batch=lambda kind, size: batches.append((kind, size)))
    go, _ = blocked(engine)
    futures = [engine.encode_image(photo_file(n % 6), "photo") for n in range(6)] + [engine.encode_text("a shirt")]
    while engine._reading:
        time.sleep(0.001)
    go.set()
    assert all(future.result().shape == (model.embedding_dim,) for future in futures)
    engine.close()
    assert sorted(batches) == [("call", 1), ("image", 2), ("image", 4), ("text", 1)]


def test_one_bad_photo_costs_the_others_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    go, _ = blocked(engine)
    good, bad = engine.encode_image(photo_file(0), "good.png"), engine.encode_image(b"no photo", "bad.png")
    compute = engine_module.encode_levels

    def failing(towers: Any, levels: Any) -> Any:
        if len(levels) > 1:
            raise RuntimeError("this batch is too large")
        return compute(towers, levels)

    monkeypatch.setattr(engine_module, "encode_levels", failing)
    other = engine.encode_image(photo_file(1), "other.png")
    while engine._reading:
        time.sleep(0.001)
    go.set()
    assert np.linalg.norm(good.result()) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(other.result()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ImageError, match=r"^bad\.png is not a photo"):
        bad.result()
    with pytest.raises(InputError, match="a text must not be empty"):
        engine.encode_text(" ")
    assert engine.under_way == 0


def test_the_queue_is_bounded_and_what_is_canceled_leaves_it(model: FashionModel) -> None:
    engine = Engine(model, queue=4)
    go, first = blocked(engine)
    waiting = [engine.encode_image(photo_file(n), "photo") for n in range(2)] + [engine.encode_text("a shirt")]
    assert engine.under_way == 4
    with pytest.raises(BusyError, match=r"^the queue is full, 4 are under way; ask again in a moment$"):
        engine.encode_text("a shirt")
    assert [future.cancel() for future in waiting] == [True] * 3
    assert engine.under_way == 1
    late = engine.encode_text("a shirt")
    go.set()
    assert first.result() is None
    assert late.result().shape == (model.embedding_dim,)
    with pytest.raises(CancelledError):
        waiting[0].result()
    engine.close()
    assert (engine.under_way, engine._held, len(engine._jobs)) == (0, 0, 0)


def test_decoded_photos_wait_outside_where_there_is_no_room(
    model: FashionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MOST_BYTES", 150_000)  # one photo has 160 x 220 x 3 bytes
    engine = Engine(model)
    go, _ = blocked(engine)
    futures = [engine.recognize(photo_file(0), "photo") for _ in range(12)]
    time.sleep(0.3)
    held = engine._held
    go.set()
    assert all(len(future.result().garments) == len(futures[0].result().garments) for future in futures)
    engine.close()
    assert 105_600 <= held <= 150_000 + 105_600 * engine._readers._max_workers
    assert engine._held == 0


def test_at_the_end_what_is_under_way_is_finished(model: FashionModel) -> None:
    engine = Engine(model)
    go, _ = blocked(engine)
    futures = [engine.recognize(photo_file(n), "photo") for n in range(5)]
    ending = Thread(target=engine.close)
    ending.start()
    while not engine._closed:
        time.sleep(0.001)
    with pytest.raises(BusyError, match=r"^the service is about to end; ask again in a moment$"):
        engine.encode_text("a shirt")
    go.set()
    ending.join(60)
    assert all(future.done() and not future.exception() for future in futures)


def test_nothing_that_is_raised_ends_the_threads(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: Any, **__: Any) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        engine.run(leave).result(30)
    with monkeypatch.context() as patched:
        patched.setattr(engine_module, "decode", leave)
        with pytest.raises(SystemExit):
            engine.encode_image(photo_file(0), "photo").result(30)
    assert engine.encode_image(photo_file(0), "photo").result(30).shape == (engine.model.embedding_dim,)
    assert engine.under_way == engine._held == 0


def test_an_idle_engine_holds_no_photo(engine: Engine) -> None:
    class Item:
        pass

    item = Item()
    gone = weakref.ref(item)
    engine._submit(("call", object()), None, lambda items: [len(items)], item).result(30)
    del item
    until = time.monotonic() + 10
    while gone() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert gone() is None


def test_clients_that_cancel_at_any_moment_leave_the_counts_at_zero(model: FashionModel) -> None:
    engine = Engine(model, queue=40)
    refused = []

    def ask(seed: int) -> None:
        draw = random.Random(seed)
        for n in range(60):
            try:
                future = engine.encode_image(photo_file(n % 6), "photo") if n % 3 else engine.encode_text("a shirt")
            except BusyError as error:
                refused.append(error)
                continue
            time.sleep(draw.random() * 0.004)
            if draw.random() < 0.7:
                future.cancel()

    threads = [Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    assert (engine.under_way, engine._held, engine._reading, len(engine._jobs)) == (0, 0, 0, 0)
    assert len(refused) < 8 * 60
