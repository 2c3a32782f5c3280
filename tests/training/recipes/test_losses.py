"""The losses against a plain NumPy evaluation of the paper's equations, written out pair by pair."""

import math

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss

from training.recipes.losses import (
    attribute_loss,
    category_loss,
    composition_loss,
    contrastive,
    raf_clip_loss,
    vocabulary_loss,
    wrong_pairs,
)

SCALE = torch.tensor(7.0, dtype=torch.float64)
TAU = 7.0


def unit(*shape, seed):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def one_direction(queries, answers):
    """Eq. (1), or (2) with the roles exchanged: the mean of -log exp(tau s_ii) / sum_j exp(tau s_ij)."""
    count, total = len(queries), 0.0
    for i in range(count):
        against = sum(math.exp(TAU * cosine(queries[i], answers[j])) for j in range(count))
        total -= math.log(math.exp(TAU * cosine(queries[i], answers[i])) / against)
    return total / count


def paper_category(image, text):
    """Eq. (3)."""
    return 0.5 * (one_direction(image, text) + one_direction(text, image))


def paper_attribute(image, texts):
    """Eq. (4): (n, b, d) texts, without the half."""
    return sum(one_direction(image, text) + one_direction(text, image) for text in texts) / len(texts)


def paper_composition(queries, targets):
    """Eq. (13) and (14): each target of the batch once."""
    return one_direction(queries, targets)


def test_category_loss_is_the_papers_and_open_clips():
    image, text = unit(6, 8, seed=0), unit(6, 8, seed=1)
    ours = category_loss(image, text, SCALE, wrong_pairs(torch.arange(6), "identity")).item()
    assert ours == pytest.approx(paper_category(image.numpy(), text.numpy()), abs=1e-12)
    assert ours == pytest.approx(ClipLoss()(image, text, SCALE).item(), abs=1e-12)


def test_both_gradients_are_open_clips():
    found = []
    for loss in (
        lambda i, t, s: category_loss(i, t, s, wrong_pairs(torch.arange(6), "identity")),
        lambda i, t, s: ClipLoss()(i, t, s),
    ):
        inputs = [part.clone().requires_grad_() for part in (unit(6, 8, seed=0), unit(6, 8, seed=1), SCALE)]
        found.append(torch.autograd.grad(loss(*inputs), inputs))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_attribute_loss_is_the_mean_over_texts_of_both_directions():
    image, text = unit(5, 8, seed=2), unit(5, 3, 8, seed=3)
    ids = torch.arange(15).reshape(5, 3)
    wanted = paper_attribute(image.numpy(), text.numpy().transpose(1, 0, 2))
    assert attribute_loss(image, text, SCALE, ids, "identity").item() == pytest.approx(wanted, abs=1e-12)
    ids[4, 2] = -1
    whole = [paper_attribute(image.numpy(), [text[:, j].numpy()]) for j in range(2)]
    part = paper_attribute(image[:4].numpy(), [text[:4, 2].numpy()])
    ours = attribute_loss(image, text, SCALE, ids, "identity").item()
    assert ours == pytest.approx(np.mean([*whole, part]), abs=1e-12)
    nothing = attribute_loss(image, text, SCALE, torch.full((5, 3), -1), "identity")
    assert nothing.item() == 0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_the_whole_loss_is_equation_five(alpha):
    crops, masked, category, texts = (unit(*shape, seed=s) for s, shape in enumerate([(6, 8)] * 3 + [(6, 4, 8)]))
    l_c = category_loss(crops, category, SCALE, wrong_pairs(torch.arange(6), "identity"))
    l_a = attribute_loss(masked, texts, SCALE, torch.arange(24).reshape(6, 4), "identity")
    paper_c = paper_category(crops.numpy(), category.numpy())
    paper_a = paper_attribute(masked.numpy(), texts.numpy().transpose(1, 0, 2))
    wanted = (1 - alpha) * paper_c + alpha * paper_a
    assert raf_clip_loss(l_c, l_a, alpha).item() == pytest.approx(wanted, abs=1e-12)


def test_composition_loss_is_the_papers_over_the_batch():
    queries, gallery = unit(4, 8, seed=4), unit(9, 8, seed=5)
    rows = torch.tensor([7, 2, 0, 5])
    wanted = paper_composition(queries.numpy(), gallery[rows].numpy())
    assert composition_loss(queries, gallery, rows, SCALE, "batch").item() == pytest.approx(wanted, abs=1e-12)


def test_float32_is_within_a_millionth_of_the_papers():
    image, text = unit(6, 8, seed=0), unit(6, 8, seed=1)
    ours = category_loss(image.float(), text.float(), SCALE.float(), wrong_pairs(torch.arange(6), "identity")).item()
    assert ours == pytest.approx(paper_category(image.numpy(), text.numpy()), abs=1e-6)


def test_to_share_the_mass_among_equal_texts_is_the_papers_own_loss():
    ids = torch.tensor([0, 1, 0, 0])
    found = []
    for shared in (True, False):
        image, words = unit(4, 8, seed=4).requires_grad_(), unit(2, 8, seed=5).requires_grad_()
        text = words[ids]
        same = (ids[:, None] == ids).double()
        target = same / same.sum(1, keepdim=True) if shared else torch.eye(4, dtype=torch.float64)
        logits = SCALE * image @ text.T
        loss = sum(-(target * part.log_softmax(1)).sum(1).mean() for part in (logits, logits.T))
        found.append([loss, *torch.autograd.grad(loss, [image, words])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_an_equal_text_is_wrong_with_identity_alone():
    ids = torch.tensor([3, 5, 3])
    assert wrong_pairs(ids, "identity").tolist() == [[False, True, True], [True, False, True], [True, True, False]]
    assert wrong_pairs(ids, "same_text").tolist() == [[False, True, False], [True, False, True], [False, True, False]]


def test_same_text_leaves_equal_texts_out_of_the_denominators():
    image, words = unit(4, 8, seed=4), unit(2, 8, seed=5)
    ids = torch.tensor([0, 1, 0, 0])
    logits = np.exp(TAU * image.numpy() @ words[ids].numpy().T)
    others = {0: [1], 1: [0, 2, 3], 2: [1], 3: [1]}
    to_text = np.mean([-np.log(logits[i, i] / (logits[i, i] + logits[i, o].sum())) for i, o in others.items()])
    to_image = np.mean([-np.log(logits[i, i] / (logits[i, i] + logits[o, i].sum())) for i, o in others.items()])
    found = contrastive(image, words[ids], SCALE, wrong_pairs(ids, "same_text"))
    assert [part.item() for part in found] == pytest.approx([to_text, to_image], abs=1e-9)


def test_equal_texts_alone_cost_nothing_with_same_text():
    image, text = unit(1, 8, seed=4).repeat(2, 1), unit(1, 8, seed=5).repeat(2, 1)
    lost = {
        t: contrastive(image, text, SCALE, wrong_pairs(torch.tensor([0, 0]), t))[0].item()
        for t in ("identity", "same_text")
    }
    assert lost == pytest.approx({"identity": np.log(2), "same_text": 0.0})


def test_vocabulary_loss_is_cross_entropy_over_the_group_and_skips_unknown_labels():
    image, text = unit(3, 8, seed=6), unit(3, 4, 8, seed=7)
    logits = TAU * np.einsum("bd,bkd->bk", image.numpy(), text.numpy())
    wanted = -log_softmax(logits)[[0, 2], [1, 3]].mean()
    target = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    assert vocabulary_loss(image, text, SCALE, target).item() == pytest.approx(wanted, abs=1e-9)
    assert vocabulary_loss(image, text, SCALE, torch.zeros(3, 4)).item() == 0


def test_vocabulary_loss_takes_probabilities_for_labels():
    image, text = unit(2, 8, seed=6), unit(2, 4, 8, seed=7)
    target = torch.tensor([[0.5, 0.25, 0.25, 0], [0, 0, 0.1, 0.9]], dtype=torch.float64)
    logits = TAU * np.einsum("bd,bkd->bk", image.numpy(), text.numpy())
    wanted = -(target.numpy() * log_softmax(logits)).sum(1).mean()
    assert vocabulary_loss(image, text, SCALE, target).item() == pytest.approx(wanted, abs=1e-9)
