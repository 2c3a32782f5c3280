"""The collector rests during imports, and is as it was after them."""

import gc

import pytest

from fashion_retrieval._collector import uncollected


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_as_it_was(before):
    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(ImportError):
            failing_import()
        assert gc.isenabled() == before
    finally:
        gc.enable()


def failing_import():
    with uncollected():
        assert not gc.isenabled()
        raise ImportError


def test_what_was_made_is_old_and_not_frozen():
    with uncollected():
        made = [[] for _ in range(50_000)]
    assert sum(gc.get_count()) < 5_000
    assert gc.get_freeze_count() == 0
    assert any(one is made for one in gc.get_objects(generation=2))


def test_what_the_caller_froze_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with uncollected():
            pass
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
