"""AGCN by hand: blocks against plain attention, gates, ablations, and that a query depends on itself alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fashion_retrieval.config import RESIDUALS, VARIANTS, ComposerConfig
from fashion_retrieval.models.composer import Block, Branch, Composer, Keys

CONFIG = ComposerConfig(embedding_dim=12, width=8, depth=2, heads=2, hidden=16, dropout=0.3, encoder="0" * 64)


def composer(variant="agcn", *, residual="text", started=False):
    """With random weights everywhere; `started` leaves exits and gates as a training finds them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Composer(replace(CONFIG, variant=variant, residual=residual)).eval()
        if not started:
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return module


def queries(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(count, s, 12, generator=generator) for s in (7, 6))
    return image, text, torch.randint(1, 7, (count,), generator=generator)


def unit(rows):
    return functional.normalize(rows, dim=-1)


def attention(module, query, key):
    """Multi-head attention without batches, written out."""
    width, heads = CONFIG.width, CONFIG.heads
    q, k, v = (x @ w.T + b for x, w, b in zip(
        (query, key, key), module.in_proj_weight.split(width), module.in_proj_bias.split(width), strict=True
    ))  # fmt: skip
    size = width // heads
    parts = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        shares = (q[:, own] @ k[:, own].T / math.sqrt(size)).softmax(-1)
        parts.append(shares @ v[:, own])
    return torch.cat(parts, dim=-1) @ module.out_proj.weight.T + module.out_proj.bias


def test_a_block_is_the_papers_equations():
    torch.manual_seed(1)
    block = Block(CONFIG).eval()
    states, context = torch.randn(5, 8), torch.randn(7, 8)
    x = block.norms[0](states + attention(block.self_attention, states, states))
    x = block.norms[1](x + attention(block.cross_attention, x, context))
    enter, _, _, leave = block.feed_forward
    x = block.norms[2](x + leave(functional.gelu(enter(x))))
    torch.testing.assert_close(block(states[None], Keys(states[None]), Keys(context[None]))[0], x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_branch_gives_the_wanted_token_of_whole_blocks(depth):
    torch.manual_seed(2)
    branch, (image, text, lengths) = Branch(replace(CONFIG, depth=depth)).eval(), queries()
    padding = torch.arange(6) >= lengths[:, None]
    for own, other, wanted, masks in (
        (image, text, torch.zeros_like(lengths), (None, padding)),
        (text, image, lengths - 1, (padding, None)),
    ):
        states, context = branch.own(own), branch.other(other)
        for block in branch.blocks:
            states = block(states, Keys(states, masks[0]), Keys(context, masks[1]))
        whole = branch.exit(states)[torch.arange(5), wanted]
        found = branch(own, other, wanted, query_padding=masks[0], key_padding=masks[1])
        torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)
        slopes = [torch.autograd.grad(result.square().sum(), [*branch.parameters()]) for result in (found, whole)]
        torch.testing.assert_close(*slopes, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_query_is_the_same_alone_and_in_any_batch(variant):
    module, (image, text, lengths) = composer(variant), queries()
    together = module(image, text, lengths)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(5))
    for row, length in enumerate(lengths.tolist()):
        alone = module(image[row : row + 1], text[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=0)
    padded = torch.cat([text, torch.full((5, 9, 12), 1e3)], dim=1)
    torch.testing.assert_close(module(image, padded, lengths), together, atol=1e-6, rtol=0)


def test_composer_variants_of_table_5_differ():
    image, text, lengths = queries()
    rows = torch.arange(5)
    pooled_image, pooled_text = unit(image[:, 0]), unit(text[rows, lengths - 1])
    full = composer()
    padding = torch.arange(6) >= lengths[:, None]
    kept = full.image_branch(image, text, torch.zeros_like(lengths), key_padding=padding)
    changed = pooled_text + full.text_branch(text, image, lengths - 1, query_padding=padding)
    both = torch.cat([pooled_image, pooled_text], dim=-1)
    a, b = full.image_gate(both), full.text_gate(both)
    assert 0 < a.min() < a.max() < 1
    expected = {
        "sum": pooled_image + pooled_text, "only_text": changed, "only_image": kept,
        "add": kept + changed, "agcn": a * kept + b * changed,
    }  # fmt: skip
    for variant, query in expected.items():
        module = composer(variant)
        module.load_state_dict({k: v for k, v in full.state_dict().items() if k in module.state_dict()})
        torch.testing.assert_close(module(image, text, lengths), unit(query), atol=1e-6, rtol=0)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_a_branch_is_its_token_or_a_change_to_the_pooled_embedding(residual):
    image, text, lengths = queries()
    padding = torch.arange(6) >= lengths[:, None]
    of_image, of_text = unit(image[:, 0]), unit(text[torch.arange(5), lengths - 1])
    module, start = (composer(residual=residual, started=started) for started in (False, True))
    kept = module.image_branch(image, text, torch.zeros_like(lengths), key_padding=padding)
    changed = module.text_branch(text, image, lengths - 1, query_padding=padding)
    kept, changed = kept + (residual == "both") * of_image, changed + (residual != "none") * of_text
    both = torch.cat([of_image, of_text], dim=-1)
    a, b = module.image_gate(both), module.text_gate(both)
    found = module.parts(image, text, lengths)
    for part, expected in zip(found, (a * kept, b * changed, torch.cat([a, b], dim=-1)), strict=True):
        torch.testing.assert_close(part, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(module(image, text, lengths), unit(a * kept + b * changed), atol=1e-6, rtol=0)
    begun, first = start.parts(image, text, lengths), 0.3 if residual == "both" else 0.1
    torch.testing.assert_close(begun.gates, torch.tensor([[first, 0.5]]).expand(5, 2))
    if residual != "none":
        torch.testing.assert_close(begun.changed, 0.5 * of_text)
    if residual == "both":
        torch.testing.assert_close(begun.kept, 0.3 * of_image)


@pytest.mark.parametrize(
    ("variant", "gates"), [("sum", [1, 1]), ("add", [1, 1]), ("only_image", [1, 0]), ("only_text", [0, 1])]
)
def test_parts_of_a_variant_without_gates_are_whole_or_nothing(variant, gates):
    image, text, lengths = queries()
    module = composer(variant)
    kept, changed, found = module.parts(image, text, lengths)
    assert found.tolist() == [gates] * 5
    assert [bool(part.any()) for part in (kept, changed)] == [gate == 1 for gate in gates]
    torch.testing.assert_close(unit(kept + changed), module(image, text, lengths))


def test_training_starts_near_the_text():
    image, text, lengths = queries()
    start, plain = composer(started=True), unit(text[torch.arange(5), lengths - 1])
    torch.testing.assert_close(composer("only_text", started=True)(image, text, lengths), plain, atol=1e-6, rtol=0)
    both = torch.cat([unit(image[:, 0]), plain], dim=-1)
    torch.testing.assert_close(start.image_gate(both), torch.full((5, 1), 0.1))
    torch.testing.assert_close(start.text_gate(both), torch.full((5, 1), 0.5))


def test_gradient_reaches_every_parameter():
    module = composer().train()
    module(*queries())[:, 0].sum().backward()
    silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_composer_has_its_size_and_golden_query():
    module = composer()
    per_branch = 2 * (24 + 8 * 13) + 2 * (2 * 4 * (64 + 8) + 8 * 16 * 2 + 24 + 3 * 16) + 8 * 12 + 12
    gate = 24 * 8 + 8 + 72 + 8 + 1
    assert sum(p.numel() for p in module.parameters()) == 2 * (per_branch + gate)
    golden = module(*queries())[0, :4].detach().numpy()
    np.testing.assert_allclose(golden, GOLDEN, atol=1e-5)


GOLDEN = [0.450308, -0.078192, 0.292536, -0.042076]
