"""The composers of the literature: what each query depends on, what each can learn, and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig
from fashion_retrieval.models.composer import Composer
from training.composers import COMPOSERS
from training.composers.base import Anchored, Baseline, view
from training.composers.clvc_net import Affine
from training.recipes.losses import composition_loss

CONFIG = ComposerConfig(
    embedding_dim=12, width=16, depth=2, heads=4, hidden=24, dropout=0.1, encoder="0" * 64, variant="agcn"
)
LENGTHS = torch.tensor([3, 6, 4, 5])
PARAMETERS = {
    "tirg": 1850, "val": 1612, "cosmo": 4142, "dcnet": 7312, "sac": 3522, "fashionvil": 4572, "clvc_net": 3388,
    "crn": 7699, "combiner": 2325, "lfm_ir": 2404,
}  # fmt: skip


def drawn_tokens(count: int = 4, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(b, 1 + 5, 12) image tokens, (b, 6, 12) text tokens and lengths."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.randn(count, 6, 12, generator=rng) * 3
    text = torch.randn(count, 6, 12, generator=rng) * 2
    return image, text, LENGTHS.repeat(-(-count // 4))[:count]


def built(name: str) -> Baseline:
    torch.manual_seed(0)
    return COMPOSERS[name](CONFIG)


@pytest.fixture(params=list(COMPOSERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_queries_have_the_shape_and_length_of_embeddings(name: str) -> None:
    query = built(name).eval()(*drawn_tokens())
    assert query.shape == (4, 12)
    assert query.dtype == torch.float32
    torch.testing.assert_close(query.norm(dim=-1), torch.ones(4))
    assert (query @ query.T)[~torch.eye(4, dtype=torch.bool)].max() < 0.999


def test_a_query_is_the_same_alone_and_in_any_batch(name: str) -> None:
    for composer in (built(name), Anchored(built(name), 12, with_photo=True)):
        composer.eval()
        image, text, lengths = drawn_tokens()
        with torch.no_grad():
            together = composer(image, text, lengths)
            for row in range(4):
                size = int(lengths[row])
                single_process = composer(image[row : row + 1], text[row : row + 1, :size], lengths[row : row + 1])
                torch.testing.assert_close(single_process[0], together[row], rtol=0, atol=1e-6)
            padding = torch.arange(6) >= lengths[:, None]
            spoiled = composer(image, torch.where(padding[..., None], 1e3, text), lengths)
        torch.testing.assert_close(spoiled, together, rtol=0, atol=1e-6)


def test_text_and_photo_matter(name: str) -> None:
    composer = built(name).eval()
    image, text, lengths = drawn_tokens()
    query = composer(image, text, lengths)
    assert (query - composer(image, text.roll(1, 0)[:, :3], lengths.clamp(max=3))).norm(dim=-1).min() > 1e-2
    assert (query - composer(image.roll(1, 0), text, lengths)).norm(dim=-1).min() > 1e-2


def test_gradient_reaches_every_parameter(name: str) -> None:
    composer = built(name)
    image, text, lengths = drawn_tokens(16)
    targets = functional.normalize(drawn_tokens(16, seed=1)[0][:, 0], dim=-1)
    query, extra = composer.learn(view(image, text, lengths), targets, torch.tensor(5.0))
    (composition_loss(query, targets, torch.arange(16), torch.tensor(5.0), "batch") + extra).backward()
    without = [key for key, value in composer.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    assert (extra.item() > 0) == (name in ("dcnet", "clvc_net"))


def test_parameter_counts(name: str) -> None:
    assert sum(p.numel() for p in built(name).parameters()) == PARAMETERS[name]


def learned(composer: Baseline, steps: int = 100) -> tuple[float, float]:
    """Loss on 16 drawn triplets before and after training on them."""
    image, text, lengths = drawn_tokens(16)
    targets = functional.normalize(drawn_tokens(16, seed=1)[0][:, 0], dim=-1)
    scale, rows = torch.tensor(10.0), torch.arange(16)

    def loss() -> float:
        with torch.no_grad():
            return composition_loss(composer.eval()(image, text, lengths), targets, rows, scale, "batch").item()

    before = loss()
    optimizer = torch.optim.AdamW(composer.parameters(), lr=1e-2)
    for _ in range(steps):
        query, extra = composer.train().learn(view(image, text, lengths), targets, scale)
        (composition_loss(query, targets, rows, scale, "batch") + extra).backward()
        optimizer.step()
        optimizer.zero_grad()
    return before, loss()


def test_a_handful_of_triplets_can_be_learned(name: str) -> None:
    before, after = learned(built(name))
    assert before > 2.5
    assert after < 0.3
    before, after = learned(Anchored(built(name), 12, with_photo=True))
    assert before > 2.5
    assert after < 0.3


def test_an_anchored_composer_starts_as_the_sum_or_the_text(name: str) -> None:
    sums = Composer(ComposerConfig(embedding_dim=12, variant="sum", encoder="0" * 64))
    anchored = Anchored(built(name), 12, with_photo=True).eval()
    torch.testing.assert_close(anchored(*drawn_tokens()), sums(*drawn_tokens()))
    anchored = Anchored(built(name), 12, with_photo=False).eval()
    torch.testing.assert_close(anchored(*drawn_tokens()), view(*drawn_tokens()).text)


def set_to(layer: nn.Module, weight: object, bias: object | None = None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))  # type: ignore[operator, arg-type]
        if bias is not None:
            layer.bias.copy_(torch.as_tensor(bias))  # type: ignore[operator, arg-type]


def two_wide(name: str) -> tuple[Baseline, tuple[Tensor, Tensor, Tensor]]:
    """A composer of two-dimensional embeddings, all its parameters zero; a photo (3, 4) / 5 and a text (0, 1)."""
    config = ComposerConfig(embedding_dim=2, width=2, depth=1, heads=1, hidden=2, dropout=0.0, encoder="0" * 64)
    composer = COMPOSERS[name](config).eval()
    with torch.no_grad():
        for parameter in composer.parameters():
            parameter.zero_()
    image = torch.tensor([[[30.0, 40.0], [50.0, 0.0], [0.0, 50.0]]])
    return composer, (image, torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([2]))


def test_the_view_is_in_units_of_the_pooled_embeddings() -> None:
    tokens = view(*two_wide("tirg")[1])
    assert tokens.image.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert tokens.cells.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
    assert tokens.text.tolist() == [[0.0, 1.0]]
    assert tokens.words.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
    assert tokens.padding.tolist() == [[False, False]]


def test_tirg_by_hand() -> None:
    """Gate sigmoid(log 3) = 3/4 on the photo, and twice a residual of ReLU(text - photo) = (0, 0.2)."""
    tirg, inputs = two_wide("tirg")
    first, norm, *_, last = tirg.residual
    set_to(first, [[0, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    set_to(norm, [1.0] * 4)
    norm.eps = 0.0
    set_to(last, [[0, 0, 0, 0], [0, 1, 0, 0]])
    with torch.no_grad():
        tirg.gate[-1].bias.fill_(math.log(3))
        tirg.weights.copy_(torch.tensor([1.0, 2.0]))
    expected = torch.tensor([0.75 * 0.6, 0.75 * 0.8 + 2 * 0.2])
    torch.testing.assert_close(tirg.compose(view(*inputs))[0], expected)
    torch.testing.assert_close(tirg(*inputs)[0], expected / expected.norm())


def test_combiner_by_hand() -> None:
    """Lambda sigmoid(log 4) = 4/5; the mixture reads ReLU of the photo's second number into the first."""
    combiner, inputs = two_wide("combiner")
    set_to(combiner.image[0], torch.eye(2))
    set_to(combiner.mixture[0], [[0, 0, 0, 1.0], [0, 0, 0, 0]])
    set_to(combiner.mixture[-1], [[0.5, 0], [0, 0]])
    with torch.no_grad():
        combiner.share[-1].bias.fill_(math.log(4))
    expected = torch.tensor([0.2 * 0.6 + 0.5 * 0.8, 0.2 * 0.8 + 0.8])
    torch.testing.assert_close(combiner.compose(view(*inputs))[0], expected)


def test_val_by_hand() -> None:
    """All weights zero but the preserving one: each gate is 1/2, so a quarter of the cells' mean is left."""
    val, inputs = two_wide("val")
    with torch.no_grad():
        val.weights.copy_(torch.tensor([5.0, 1.0]))
    torch.testing.assert_close(val.compose(view(*inputs)), torch.tensor([[0.125, 0.125]]))


def test_cosmo_keeps_or_sets_the_style() -> None:
    """Without content, the mean of the cells is the shift: half the photo's mean, and what the text says."""
    cosmo, inputs = two_wide("cosmo")
    set_to(cosmo.style, [[0, 0], [0, 0], [0, 3.0], [0, 0]])
    torch.testing.assert_close(cosmo.compose(view(*inputs)), torch.tensor([[0.25 + 3.0, 0.25]]))


def test_dcnet_by_hand() -> None:
    """Half the photo, as each expert sees it: (3, 4) / 5, the mean (1, 1) / 2 and the maximum (1, 1) of the cells."""
    dcnet, inputs = two_wide("dcnet")
    diagonal = 2**-0.5
    expected = torch.tensor([[0.6 + 2 * diagonal, 0.8 + 2 * diagonal]])
    torch.testing.assert_close(dcnet.compose(view(*inputs)), expected)


def test_sac_looks_where_its_words_say() -> None:
    """Words shift every cell alike, cells score by their first number: softmax(tanh(2), 0) weighs them."""
    sac, inputs = two_wide("sac")
    torch.testing.assert_close(sac.attend(view(*inputs)), torch.tensor([[0.5, 0.5]]))
    set_to(sac.words.exit, torch.zeros(2, 2), [2.0, 0.0])
    set_to(sac.cells, torch.eye(2))
    set_to(sac.look, [[1.0, 0.0]])
    share = math.exp(math.tanh(2)) / (math.exp(math.tanh(2)) + 1)
    torch.testing.assert_close(sac.attend(view(*inputs)), torch.tensor([[share, 1 - share]]))


def test_an_affine_change_by_hand() -> None:
    affine = Affine(2, 1, 0.0)
    set_to(affine.layers[-1], [[1.0], [0.0], [0.0], [2.0]], [0.0, 0.0, 0.0, 0.0])
    changed = affine(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.5]]))
    assert changed.tolist() == [[4.5, 5.0]]


def test_mutual_enhancement_by_hand() -> None:
    """Local-wise (1, 1) / sqrt 2 cannot choose between two targets, global-wise (3, 4) / 5 can: both divergences."""
    clvc, (image, text, lengths) = two_wide("clvc_net")
    image, text, lengths = image.repeat(2, 1, 1), text.repeat(2, 1, 1), lengths.repeat(2)
    query, extra = clvc.learn(view(image, text, lengths), torch.eye(2), torch.tensor(5.0))
    share = 1 / (1 + math.exp(5 * 0.2))
    even = 0.5 * (math.log(0.5 / share) + math.log(0.5 / (1 - share)))
    uneven = share * math.log(share / 0.5) + (1 - share) * math.log((1 - share) / 0.5)
    assert extra.item() == pytest.approx(even + uneven, abs=1e-6)
    diagonal = 2**-0.5
    expected = functional.normalize(torch.tensor([[0.6 + diagonal, 0.8 + diagonal]]))
    torch.testing.assert_close(query[:1], expected)


def test_crn_relates_both_ways() -> None:
    """Without weights each relation is even; the gates keep half, the levels are cells, parts and whole."""
    crn, inputs = two_wide("crn")
    with torch.no_grad():
        crn.weights.fill_(1.0)
        crn.parts.fill_(0.5)
    torch.testing.assert_close(crn.compose(view(*inputs)), torch.tensor([[0.25 + 0.25 + 0.3, 0.25 + 0.25 + 0.4]]))


def test_lfm_ir_by_hand() -> None:
    """The second cell is the text's: softmax(0, 2) weighs the cells, even gates halve them; fused into the second."""
    lfm, inputs = two_wide("lfm_ir")
    set_to(lfm.places, torch.eye(2))
    set_to(lfm.told, [[0, 0], [0, 2 * 2**0.5]])
    share = math.exp(2) / (1 + math.exp(2))
    torch.testing.assert_close(lfm.locate(view(*inputs)), torch.tensor([[(1 - share) / 2, share / 2]]))
    set_to(lfm.modify[-1], torch.zeros(2, 2), [0.0, 1.0])
    set_to(lfm.fuse[0], [[0, 0, 0, 1.0, 0, 0], [0, 0, 0, 0, 0, 3.0]])
    set_to(lfm.fuse[-1], [[0, 0], [1.0, 1.0]])
    torch.testing.assert_close(lfm.compose(view(*inputs)), torch.tensor([[0.6, 0.8 + share / 2 + 1 + 3]]))
