"""The losses against a plain NumPy evaluation of the paper's equations."""

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss

from training.losses import (
    attribute_loss,
    category_loss,
    contrastive,
    raf_clip_loss,
    vocabulary_loss,
    wrong_pairs,
)

SCALE = torch.tensor(7.0)


def unit(*shape, seed):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def infonce(image, text, target):
    """Eq. (1) and (2), written out."""
    logits = float(SCALE) * image.numpy() @ text.numpy().T
    return (
        -(target * log_softmax(logits)).sum(1).mean(),
        -(target * log_softmax(logits.T)).sum(1).mean(),
    )


def test_category_loss_is_the_papers_and_open_clips():
    image, text = unit(6, 8, seed=0), unit(6, 8, seed=1)
    ours = category_loss(image, text, SCALE, wrong_pairs(torch.arange(6), "identity")).item()
    assert ours == pytest.approx(sum(infonce(image, text, np.eye(6))) / 2, abs=1e-9)
    assert ours == pytest.approx(ClipLoss()(image, text, SCALE).item(), abs=1e-6)


def test_attribute_loss_is_the_mean_over_texts_of_both_directions():
    image, text = unit(5, 8, seed=2), unit(5, 3, 8, seed=3)
    ids = torch.arange(15).reshape(5, 3)
    ids[4, 2] = -1
    whole = [sum(infonce(image, text[:, j], np.eye(5))) for j in range(2)]
    part = sum(infonce(image[:4], text[:4, 2], np.eye(4)))
    ours = attribute_loss(image, text, SCALE, ids, "identity").item()
    assert ours == pytest.approx(np.mean([*whole, part]), abs=1e-6)


def test_an_equal_text_is_wrong_with_identity_alone():
    ids = torch.tensor([3, 5, 3])
    assert wrong_pairs(ids, "identity").tolist() == [[False, True, True], [True, False, True], [True, True, False]]
    assert wrong_pairs(ids, "same_text").tolist() == [[False, True, False], [True, False, True], [False, True, False]]


def test_same_text_leaves_equal_texts_out_of_the_denominators():
    image, words = unit(4, 8, seed=4), unit(2, 8, seed=5)
    ids = torch.tensor([0, 1, 0, 0])
    logits = np.exp(float(SCALE) * image.numpy() @ words[ids].numpy().T)
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


def test_the_whole_loss_mixes_by_alpha():
    assert raf_clip_loss(torch.tensor(2.0), torch.tensor(6.0), 0.25).item() == 3.0


def test_vocabulary_loss_is_cross_entropy_over_the_group_and_skips_unknown_labels():
    image, text = unit(3, 8, seed=6), unit(3, 4, 8, seed=7)
    logits = float(SCALE) * np.einsum("bd,bkd->bk", image.numpy(), text.numpy())
    wanted = -log_softmax(logits)[[0, 2], [1, 3]].mean()
    target = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    assert vocabulary_loss(image, text, SCALE, target).item() == pytest.approx(wanted, abs=1e-9)
    assert vocabulary_loss(image, text, SCALE, torch.zeros(3, 4)).item() == 0


def test_vocabulary_loss_takes_probabilities_for_labels():
    image, text = unit(2, 8, seed=6), unit(2, 4, 8, seed=7)
    target = torch.tensor([[0.5, 0.25, 0.25, 0], [0, 0, 0.1, 0.9]], dtype=torch.float64)
    logits = float(SCALE) * np.einsum("bd,bkd->bk", image.numpy(), text.numpy())
    wanted = -(target.numpy() * log_softmax(logits)).sum(1).mean()
    assert vocabulary_loss(image, text, SCALE, target).item() == pytest.approx(wanted, abs=1e-9)
