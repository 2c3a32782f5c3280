"""Cached embeddings give the gradient of the plain step, with a part's activations in memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from training.engine.grad_cache import embed_in_parts
from training.recipes.losses import category_loss, wrong_pairs

SCALE = torch.tensor(7.0, dtype=torch.float64)


def towers(*, dropout=0.0):
    torch.manual_seed(0)
    image = nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, 8))
    return nn.ModuleDict({"image": image, "text": nn.Linear(5, 8)}).double()


def step(modules, micro_batch, *, seed=1):
    """The loss of a fixed batch, and the gradients of all weights."""
    modules.zero_grad()
    rng = torch.Generator().manual_seed(2)
    pixels = torch.randn(7, 12, generator=rng, dtype=torch.float64)
    texts = torch.randn(7, 5, generator=rng, dtype=torch.float64)
    torch.manual_seed(seed)
    image = functional.normalize(embed_in_parts(modules["image"], pixels, micro_batch), dim=-1)
    text = functional.normalize(embed_in_parts(modules["text"], texts, micro_batch), dim=-1)
    loss = category_loss(image, text, SCALE, wrong_pairs(torch.arange(7), "identity"))
    loss.backward()
    return loss.item(), [parameter.grad for parameter in modules.parameters()]


@pytest.mark.parametrize("micro_batch", [1, 3, 7, 64])
def test_loss_and_gradient_are_the_plain_steps(micro_batch):
    plain, gradients = step(towers(), 0)
    loss, cached = step(towers(), micro_batch)
    assert loss == pytest.approx(plain, abs=1e-14)
    for one, other in zip(gradients, cached, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_dropout_of_both_passes_is_the_same():
    modules = towers(dropout=0.5)
    loss, gradients = step(modules, 3)
    first = modules["image"][0].weight
    moved = torch.zeros_like(first)
    moved[4, 5] = 1e-6
    with torch.no_grad():
        first += moved
    higher, _ = step(modules, 3)
    with torch.no_grad():
        first -= 2 * moved
    lower, _ = step(modules, 3)  # a slope is the gradient where dropout is the same
    assert (higher - lower) / 2e-6 == pytest.approx(gradients[0][4, 5].item(), rel=1e-6)
    assert step(modules, 3, seed=5)[0] != pytest.approx(loss, rel=1e-3)


def saved_bytes(forward, modules):
    """Bytes of the activations that a forward pass keeps for its backward pass, each storage once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in modules.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def test_embed_in_parts_saves_only_the_inputs():
    modules, pixels = towers(), torch.randn(64, 12, dtype=torch.float64)
    plain = saved_bytes(lambda: embed_in_parts(modules["image"], pixels, 0), modules)
    parts = saved_bytes(lambda: embed_in_parts(modules["image"], pixels, 8), modules)
    assert plain > 64 * 64 * 8
    assert parts <= 64 * 12 * 8


def test_embed_in_parts_computes_one_part_at_a_time():
    modules, pixels = towers(), torch.randn(64, 12, dtype=torch.float64)
    rows = []
    modules["image"][0].register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    embed_in_parts(modules["image"], pixels, 8).sum().backward()
    assert rows == [8] * 16  # each part forward, then again in the backward pass
