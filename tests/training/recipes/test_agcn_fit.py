"""Training on frozen features: the loss by hand, and several processes as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fashion_retrieval import checkpoint
from tests.support.drawn_pack import log_of, save_photo, write_lines
from tests.support.drawn_products import recipe, write_products, write_toml
from training import train_agcn
from training.engine import distributed
from training.engine.distributed import DistributedEnv
from training.engine.loop import generator
from training.recipes.agcn_data import load_dataset, read_others
from training.recipes.agcn_fit import sample_batch
from training.recipes.losses import composition_loss, contrast_loss

ALONE = DistributedEnv(0, 1, torch.device("cpu"))


def test_composition_loss_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=-1) for n in (3, 5))
    targets, scale = torch.tensor([4, 0, 4]), torch.tensor(7.0)
    cosines = 7 * (query @ gallery.T).double().numpy()
    rows = np.arange(3)
    for negatives, columns in (("gallery", [0, 1, 2, 3, 4]), ("batch", [0, 4])):
        total = np.log(np.exp(cosines[:, columns]).sum(1)) - cosines[rows, targets.numpy()]
        loss = composition_loss(query, gallery, targets, scale, negatives)  # type: ignore[arg-type]
        assert loss.item() == pytest.approx(total.mean(), abs=1e-6)


def test_photos_that_answer_too_are_no_negatives() -> None:
    query, gallery = torch.eye(3)[:2], torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 0, 1]])
    also = torch.tensor([[False, True, False, False], [False, False, False, True]])
    loss = composition_loss(query, gallery, torch.tensor([0, 2]), torch.tensor(2.0), "gallery", also)
    first = np.log(np.exp(2.0) + 2) - 2
    second = np.log(1 + np.exp(1.6) + np.exp(2.0)) - 2
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    batch = composition_loss(query, gallery, torch.tensor([0, 2]), torch.tensor(2.0), "batch", also)
    assert batch.item() == pytest.approx(np.log(np.exp(2.0) + 1) - 2, abs=1e-6)
    others = torch.tensor([3])  # a negative of the first query, which its batch does not have
    batch = composition_loss(query, gallery, torch.tensor([0, 2]), torch.tensor(2.0), "batch", also, others)
    first, second = np.log(np.exp(2.0) + 2) - 2, np.log(np.exp(2.0) + 1) - 2
    assert batch.item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert contrast_loss(torch.tensor([0.0, 3.0])).tolist() == pytest.approx([np.log(2), np.log1p(np.exp(-3))])


def test_two_processes_are_one_with_the_whole_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process leads, a second one follows it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base = recipe(write_products(tmp_path / "pack"), tmp_path)
    plan = replace(base.optimization, steps=8, ema=0.9, checkpoint_every=8)
    base = replace(
        base,
        optimization=plan,
        composer=replace(base.composer, dropout=0.0),
        negatives="batch",
        validate_every=4,
        sampling="epoch",
        changes_share=0.25,
        edits_share=0.2,
        wrong_photo=1.0,
        wrong_text=0.5,
    )
    configs = {
        name: write_toml(
            replace(base, output=str(tmp_path / name), cache=str(tmp_path / f"{name}_cache")), tmp_path / f"{name}.toml"
        )
        for name in ("one", "two")
    }
    train_agcn.main(configs["one"])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "training.train_agcn", str(configs["two"])]
    environment = {**os.environ, **shared, "RANK": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as follower:
        for name, value in {**shared, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(distributed, "_TIMEOUT", timedelta(seconds=100))
        train_agcn.main(configs["two"])
        said, _ = follower.communicate()
    assert (follower.returncode, said) == (0, "")
    assert capsys.readouterr().out.count("model with its composer written to") == 2
    for ours, theirs in zip(log_of(tmp_path / "two"), log_of(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    two, one = (load_file(tmp_path / name / "model/composer.safetensors") for name in ("two", "one"))
    assert two.keys() == one.keys()
    for name, value in two.items():
        torch.testing.assert_close(value, one[name], rtol=1e-3, atol=1e-4)


def test_an_epoch_sees_each_triplet_once(tmp_path: Path) -> None:
    settings = replace(recipe(write_products(tmp_path / "pack"), tmp_path), derived=0, derived_share=0.0, batch_size=12)
    settings = replace(settings, patience=0, validate_every=0, held_out=0.0)
    dataset = load_dataset(settings, checkpoint.load(Path(settings.model)).encoder.eval(), ALONE)
    assert len(dataset.triplets) == 36
    wanted = sorted(example.right[0] for example in dataset.triplets)
    for sampling, same in (("epoch", True), ("chance", False)):
        told = replace(settings, sampling=sampling)  # type: ignore[arg-type]
        for epoch in range(2):
            steps = range(3 * epoch, 3 * epoch + 3)
            drawn = [sample_batch(told, dataset, step, generator(0, step), ALONE).targets for step in steps]
            assert (sorted(torch.cat(drawn).tolist()) == wanted) == same


def test_a_batch_has_its_share_of_each_source(tmp_path: Path) -> None:
    base = recipe(write_products(tmp_path / "pack"), tmp_path)
    told = replace(base, batch_size=20, changes_share=0.25, edits_share=0.15, derived_share=0.1, wrong_photo=1.0)
    dataset = load_dataset(told, checkpoint.load(Path(told.model)).encoder.eval(), ALONE)
    assert [(source.needs_photo, source.share) for source in dataset.sources] == [
        (False, 0.5), (False, 0.1), (True, 0.25), (True, 0.15)
    ]  # fmt: skip
    batch = sample_batch(told, dataset, 0, generator(0, 0), ALONE)
    assert batch.asked.tolist() == list(range(12, 20))
    assert batch.asked_of_all == 8
    assert [*batch.wrong] == ["wrong_photo"]
    image, text, lengths = batch.wrong["wrong_photo"]
    order = [*range(13, 20), 12]  # each has the photo of the next, and its own text
    torch.testing.assert_close(image, batch.tokens[0][order], rtol=0, atol=0)
    torch.testing.assert_close(lengths, batch.tokens[2][12:], rtol=0, atol=0)
    torch.testing.assert_close(text, batch.tokens[1][12:, : text.shape[1]], rtol=0, atol=0)
    counts = [len(example.right) - 1 for example in dataset.sources[3].examples]
    assert max(counts) == 2  # the two other groups have a garment of the same labels
    assert batch.also_right.sum(1).tolist()[:17] == [0] * 17
    assert not batch.also_right[torch.arange(20), batch.targets].any()
    assert batch.also_right[17:].sum(1).tolist() == [2, 1, 1]  # of two, one is held out


def test_others_are_negatives_that_answer_nothing(tmp_path: Path) -> None:
    pack = write_products(tmp_path / "pack")
    rows = [json.loads(line) for line in (pack / "products.jsonl").read_text().splitlines()]
    shoes = [{**rows[0], "id": name, "group": None, "split": "train", "master_category": "Footwear"} for name in "xyz"]
    write_lines(pack / "products.jsonl", [*rows, *shoes, {**shoes[0], "id": "v", "split": "val"}])
    hats = [{"id": "h", "split": "train", "label": "Hat"}, {"id": "t", "split": "train", "label": "T-Shirt"}]
    write_lines(pack / "clothing.jsonl", hats)
    for path in (pack / "products/train" / f"{name}.jpg" for name in "xyz"):
        save_photo(np.full((40, 30, 3), 7, np.uint8), path)
    save_photo(np.full((40, 30, 3), 9, np.uint8), pack / "clothing/train/h.jpg")
    wanted = {*(pack / "products/train" / f"{name}.jpg" for name in "xyz"), pack / "clothing/train/h.jpg"}
    assert {*read_others(pack, 9, 0)} == wanted
    assert len(read_others(pack, 2, 0)) == 2
    told = replace(recipe(pack, tmp_path), others=3)
    dataset = load_dataset(told, checkpoint.load(Path(told.model)).encoder.eval(), ALONE)
    assert dataset.others == 3
    assert max(row for source in dataset.sources for e in source.examples for row in e.right) < len(dataset.gallery) - 3
    assert len(dataset.gallery) == len(load_dataset(replace(told, others=0), dataset.texts.encoder, ALONE).gallery) + 3


def test_the_loss_of_wrong_photos_makes_a_composer_look(tmp_path: Path) -> None:
    base = recipe(write_products(tmp_path / "pack"), tmp_path)
    plan = replace(base.optimization, steps=40, checkpoint_every=40)
    plain = replace(base, optimization=plan, changes_share=0.5, derived_share=0.2, validate_every=0)
    worth = []
    for name, weight in (("without", 0.0), ("with", 5.0)):
        told = replace(plain, wrong_photo=weight, output=str(tmp_path / name))
        bundle = checkpoint.load(Path(told.model))
        composer = train_agcn.train(told, bundle)
        dataset = load_dataset(told, bundle.encoder.eval(), ALONE)
        batch = sample_batch(replace(told, wrong_photo=1.0), dataset, 0, generator(9, 9), ALONE)
        targets = dataset.gallery[batch.targets][batch.asked]
        with torch.no_grad():
            ahead = composer(*batch.tokens)[batch.asked] - composer(*batch.wrong["wrong_photo"])
        worth.append((ahead * targets).sum(-1).mean().item())
    assert worth[1] > worth[0] + 0.02, worth


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
