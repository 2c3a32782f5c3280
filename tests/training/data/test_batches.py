"""Which garments a step sees: each once an epoch, or by weight."""

from pathlib import Path

import pytest
import torch

from fashion_retrieval.errors import ConfigError
from training.data.batches import Batches, Pool, epoch_rows
from training.data.manifest import Sample
from training.engine.loop import generator


def garments(count, start=0):
    return [Sample("products", str(start + number), Path(f"{start + number}.jpg")) for number in range(count)]


def test_every_row_comes_once_an_epoch_in_another_order():
    seen = torch.cat([epoch_rows(10, 4, step, 0) for step in range(10)])  # four epochs
    epochs = seen.view(4, 10)
    assert torch.equal(epochs.sort(1).values, torch.arange(10).expand(4, 10))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    assert torch.equal(epoch_rows(10, 4, 7, 0), seen[28:32])  # whenever it is asked
    assert not torch.equal(epoch_rows(10, 10, 0, 1), epochs[0])


def test_a_batch_holds_crops_and_the_masked_crops_of_those_that_have_a_mask():
    pools = [
        Pool(garments(5), 2, masked=False),
        Pool(garments(3, 5), 3, masked=True),
        Pool(garments(4, 8), 1, masked=False),
    ]
    batches = Batches(pools, None, seed=0)
    assert (len(batches.samples), len(batches.crops)) == (12, 15)
    assert [crop.sample.id for crop in batches.crops if crop.masked] == ["5", "6", "7"]
    batch = batches.draw(0, generator(0))
    assert batch.masked.tolist() == [False, False, True, True, True, False]
    assert sorted(batch.garments[2:5].tolist()) == [5, 6, 7]
    crop_rows = [batches.crops[row] for row in batch.crop_rows]
    assert [crop.masked for crop in crop_rows] == [False] * 6 + [True] * 3
    assert [p.sample.id for p in crop_rows[6:]] == [p.sample.id for p in crop_rows[2:5]]
    crops, masked = batch.by_garment(torch.arange(9.0)[:, None])
    assert crops.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert masked.flatten().tolist() == [0, 1, 6, 7, 8, 5]


def test_an_epoch_ends_when_the_slowest_pool_is_through():
    pools = [Pool(garments(5), 2, masked=False), Pool(garments(12), 3, masked=False)]
    batches = Batches(pools, None, seed=0)
    assert batches.steps_per_epoch == 4
    seen = torch.cat([batches.draw(step, generator(0)).garments for step in range(4)])
    assert sorted(seen[seen >= 5].tolist()) == list(range(5, 17))


def test_a_draw_by_weight_depends_on_its_chance_alone():
    weights = torch.tensor([1.0, 0.0, 1.0, 8.0], dtype=torch.float64)
    batches = Batches([Pool(garments(4), 2, masked=False)], weights, seed=0)
    first, again = (batches.draw(step, generator(0, 3)).garments for step in (3, 5))
    assert torch.equal(first, again)
    single = Batches([Pool(garments(4), 1, masked=False)], weights, seed=0)
    drawn = torch.cat([single.draw(0, generator(step)).garments for step in range(200)])
    shares = drawn.bincount(minlength=4) / 200
    assert shares.tolist() == pytest.approx([0.1, 0, 0.1, 0.8], abs=0.07)


def test_more_garments_than_there_are_is_one_fault_for_all_pools():
    pools = [Pool(garments(5), 6, masked=False), Pool(garments(3), 4, masked=True)]
    with pytest.raises(ConfigError, match="can't draw 6 of 5, 4 of 3 garments without repeats"):
        Batches(pools, None, seed=0)
