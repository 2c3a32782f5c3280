"""Captions by a small random BLIP of transformers: the beam search's words, stopping and going on, the command."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor
from typer.testing import CliRunner

from fashion_retrieval.errors import ModelNotFoundError, WeightsError
from tests.support.deepfashion_tree import write_tree
from training.engine.files import LineFile
from training.prepare.__main__ import app
from training.prepare.captions import Beam, Captioner, caption_settings, prepare_captions
from training.prepare.garments import load_garment, read_garments

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "woman", "in", "red", "blue", "dress", "with", "long", "sleeves", "shirt"]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("deepfashion")
    write_tree(root, {"train": 4, "val": 2, "test": 3})
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    special = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = TOWER | special | {"vocab_size": len(WORDS), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    config = BlipConfig(text_config=text, vision_config=TOWER | {"image_size": 32, "patch_size": 8}, projection_dim=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = BlipForConditionalGeneration(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.text_decoder.cls.predictions.decoder.bias.data[[0, 1, 2, 4]] = -50  # words, and the end
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(folder):
    return Captioner.from_pretrained(str(folder), device="cpu")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_captions_are_what_beam_search_says(root, captioner):
    images = [load_garment(garment)[0] for garment in read_garments(root)[:3]]
    texts = captioner.caption(images)
    assert texts == [captioner.caption([image])[0] for image in images]
    for image, text in zip(images, texts, strict=True):
        pixels = captioner.processor(images=image, return_tensors="pt")["pixel_values"]
        beams = captioner.model.generate(
            pixels, num_beams=3, num_return_sequences=3, do_sample=False, min_new_tokens=5, max_new_tokens=20
        )
        assert captioner.processor.decode(beams[0], skip_special_tokens=True).strip() == text
        assert 5 <= len(text.split()) <= 20
        assert set(text.split()) <= set(WORDS)


def test_the_command_writes_settings_and_captions(root, folder, captioner, tmp_path):
    out = tmp_path / "captions.jsonl"
    arguments = ["captions", str(root), "--out", str(out), "--model", str(folder), "--batch-size", "4"]
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert f"9 captions in {out}" in done.stdout
    header, *rows = rows_of(out)
    assert header == {
        "kind": "captions",
        "model": str(folder),
        "revision": None,
        "view": "photo",
        "num_beams": 3,
        "min_new_tokens": 5,
        "max_new_tokens": 20,
    }
    garments = read_garments(root)
    assert [row["id"] for row in rows] == [garment.id for garment in garments]
    assert rows[7]["caption"] == captioner.caption([load_garment(garments[7])[0]])[0]
    before = out.read_bytes()
    again = CliRunner().invoke(app, [*arguments, "--beams", "5"])
    assert "num_beams 3 instead of 5; take another --out" in str(again.exception)
    assert out.read_bytes() == before


def test_an_interrupted_run_goes_on_to_the_same_file(root, captioner, tmp_path):
    garments, settings = read_garments(root), caption_settings("tiny", Beam(), "crop")
    straight, stopped = tmp_path / "straight.jsonl", tmp_path / "stopped.jsonl"
    assert prepare_captions(garments, captioner, LineFile(straight, settings), view="crop", batch_size=2) == []
    calls = []

    class Stopping:
        def caption(self, images):
            calls.append(len(images))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return captioner.caption(images)

    with pytest.raises(KeyboardInterrupt):
        prepare_captions(garments, Stopping(), LineFile(stopped, settings), view="crop", batch_size=2)
    assert len(rows_of(stopped)) == 1 + 4
    with stopped.open("ab") as file:
        file.write(b'{"id": "Drawn_Two-')
    lines = LineFile(stopped, settings)
    assert lines.done == {garment.id for garment in garments[:4]}
    prepare_captions(garments, captioner, lines, view="crop", batch_size=2)
    assert stopped.read_bytes() == straight.read_bytes()


def test_the_crop_is_what_lies_in_the_box(root, tmp_path):
    seen = []

    class Looking:
        def caption(self, images):
            seen.extend(image.size for image in images)
            return ["a dress"] * len(images)

    garments = read_garments(root)
    prepare_captions(garments, Looking(), LineFile(tmp_path / "c.jsonl", {}), view="crop", batch_size=4)
    boxes = [load_garment(garment)[1] for garment in garments]
    assert seen == [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]


def test_bad_photos_and_empty_captions_are_named(root, tmp_path):
    class Silent:
        def caption(self, images):
            return ["a dress", *[""] * (len(images) - 1)]

    garments = read_garments(root, ["train"])
    garments[0] = replace(garments[0], photo=tmp_path / "nowhere.jpg")
    lines = LineFile(tmp_path / "captions.jsonl", {})
    failures = prepare_captions(garments, Silent(), lines, view="photo", batch_size=3)
    assert [name for name, _ in failures] == [garments[0].id, garments[2].id, garments[3].id]
    assert "nowhere.jpg' does not exist" in failures[0][1]
    assert failures[1][1] == "empty caption"
    assert lines.done == {garments[1].id}


def test_a_model_that_is_not_whole_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelNotFoundError, match="can't be loaded as BLIP"):
        Captioner.from_pretrained(str(tmp_path))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = "vision_model.encoder.layers.1.mlp.fc1.weight"
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=f"lacks 1 tensors, the first {lost}"):
        Captioner.from_pretrained(str(tmp_path))


def test_image_mode_does_not_matter_to_the_loader(root, tmp_path):
    garment = read_garments(root)[0]
    Image.new("L", (96, 128), 90).save(tmp_path / "gray.png")
    image, _ = load_garment(replace(garment, photo=tmp_path / "gray.png"))
    assert image.mode == "RGB"
