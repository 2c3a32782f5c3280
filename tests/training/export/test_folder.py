"""From trained modules to a model folder: joined, saved, read back, compared; whole or not at all."""

from __future__ import annotations

import hashlib
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import WeightsError
from tests.support.exported import (
    WEIGHTS,
    refused,
    run,
    trained_composer,
    trained_encoder,
    trained_segmenter,
    write_recipe,
)
from tests.support.tiny import altered, contents, tiny_folder
from training.export import folder as export_folder
from training.export.compare import Agreement, compare, drawn_photos


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """An encoder that was trained."""
    trained_encoder(tmp_path / "encoder")
    return tmp_path


# A text tower of its own training


def test_model_command_takes_the_text_tower_that_was_trained(tmp_path: Path) -> None:
    for seed, name in enumerate(("encoder", "text")):
        tiny_folder(tmp_path / name, altered(custom_text=True), seed=seed)
    assert run("model", write_recipe(tmp_path / "e.toml", text=str(tmp_path / "text"))).exit_code == 0
    image, text, joined = (load_file(tmp_path / name / WEIGHTS) for name in ("encoder", "text", "tiny"))
    assert joined.keys() == image.keys()
    for name, value in joined.items():
        source = text if name.startswith("text.") else image
        assert torch.equal(value, source[name].half()), name


def test_model_command_refuses_another_text_tower(desk: Path) -> None:
    tiny_folder(desk / "text", altered(custom_text=True))
    config = write_recipe(desk / "e.toml", text=str(desk / "text"))
    assert "must be one of its own and like the encoder's" in refused(run("model", config))
    config = write_recipe(desk / "e.toml", text=str(desk / "nowhere"))
    assert "nowhere/open_clip_config.json (of training.train_words)" in refused(run("model", config))


# A whole model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with all three parts, and what the command said."""
    desk = tmp_path_factory.mktemp("desk")
    trained_segmenter(desk / "segmenter")
    trained_composer(desk / "trained", trained_encoder(desk / "encoder"))
    config = write_recipe(
        desk / "export.toml",
        segmenter=str(desk / "segmenter"),
        composer=str(desk / "trained"),
        taxonomy="deepfashion",
        repo_id="house/tiny",
    )
    done = run("model", config)
    assert done.exit_code == 0, done.output
    return desk / "tiny", done.stdout


def test_model_command_writes_what_was_trained(exported: tuple[Path, str]) -> None:
    folder, said = exported
    saved, trained = checkpoint.load(folder), checkpoint.load(folder.parent / "trained")
    assert saved.encoder.fingerprint == trained.encoder.fingerprint
    assert saved.composer is not None
    assert trained.composer is not None
    for name, tensor in saved.composer.state_dict().items():
        assert torch.equal(tensor, trained.composer.state_dict()[name].half().float())
    before = load_file(folder.parent / "segmenter" / "segmenter.safetensors")
    after = load_file(folder / "segmenter.safetensors")
    assert after.keys() == before.keys()
    assert after["head.1.weight"].dtype == torch.float16
    assert torch.equal(after["head.1.weight"], before["head.1.weight"].half())
    least, written = said.splitlines()
    assert least.startswith(
        "least cosine of the saved model to the trained one: photos 1.000000, texts 1.000000, queries"
    )
    assert least.endswith("% of the pixels")
    assert f"encoder {saved.encoder.fingerprint[:12]}…" in written
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        "encoder",
        "export.toml",
        "segmenter",
        "tiny",
        "trained",
    ]


def test_model_command_writes_the_card(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "fashion-retrieval")
    assert {"image-segmentation", "composed-image-retrieval"} <= {*card.data.tags}
    for name in (WEIGHTS, "segmenter.safetensors", "composer.safetensors"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert f"| `{name}` | `{digest}` |" in card.text
    assert 'from_pretrained("house/tiny")' in card.text
    assert "taxonomy `deepfashion`" in card.text
    assert "- Drawn shirts, CC0\n" in card.text


def test_model_command_writes_files_of_usual_mode(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    (folder.parent / "export.toml").touch()
    usual = stat.S_IMODE((folder.parent / "export.toml").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {usual}


def test_model_command_takes_the_mean_of_several_encoders(desk: Path) -> None:
    trained_encoder(desk / "second", seed=1)
    encoders = [str(desk / name) for name in ("encoder", "second")]
    assert run("model", write_recipe(desk / "e.toml", encoders=encoders, weights_dtype="float32")).exit_code == 0
    first, second, mean = (load_file(desk / name / WEIGHTS) for name in ("encoder", "second", "tiny"))
    torch.testing.assert_close(mean["visual.proj"], (first["visual.proj"] + second["visual.proj"]) / 2)
    assert (first["visual.proj"] - second["visual.proj"]).abs().max() > 0.01


# What is refused leaves everything as it was


def test_recipe_names_all_faults_at_once(desk: Path) -> None:
    config = write_recipe(
        desk / "e.toml",
        encoders=[],
        image_size=[64],
        taxonomy="latin",
        repo_id="tiny",
        least_cosine=2.0,
        weights_dtype="int8",
        license=None,
        color="red",
    )
    line = refused(run("model", config))
    for part in ("'encoders' must", "'image_size' must", "latin", "'tiny' is not a Hub id", "'least_cosine' must"):
        assert part in line
    for part in ("unknown keys color", "'license' is missing", "'weights_dtype' must be 'float16' or 'float32'"):
        assert part in line


def test_model_command_names_all_missing_parts(desk: Path) -> None:
    (desk / "encoder" / WEIGHTS).unlink()
    line = refused(run("model", write_recipe(desk / "e.toml", segmenter=str(desk / "s"), composer=str(desk / "c"))))
    assert "5 trained file(s) not found" in line
    for name, recipe in ((f"encoder/{WEIGHTS}", "train_raf_clip"), ("s/segmenter.json", "train_segmenter")):
        assert f"{desk / name} (of training.{recipe})" in line
    assert f"{desk / 'c' / 'composer.safetensors'} (of training.train_agcn)" in line
    assert not (desk / "tiny").exists()


@pytest.mark.parametrize("fault", ["json", "key", "weights"])
def test_model_command_with_a_damaged_segmenter_says_one_line(desk: Path, fault: str) -> None:
    folder = trained_segmenter(desk / "segmenter")
    if fault == "json":
        (folder / "segmenter.json").write_text("{")
    if fault == "key":
        (folder / "segmenter.json").write_text('{"width": 3}')
    if fault == "weights":
        save_file({"a": torch.zeros(1)}, folder / "segmenter.safetensors")
    line = refused(run("model", write_recipe(desk / "e.toml", segmenter=str(folder))))
    assert "train it again" in line
    assert str(folder) in line


def test_publish_of_a_model_changed_by_saving_leaves_the_old_folder(desk: Path) -> None:
    config = write_recipe(desk / "e.toml")
    assert run("model", config).exit_code == 0
    before = contents(desk / "tiny")
    state = load_file(desk / "encoder" / WEIGHTS)
    state["visual.proj"] *= 3e-7  # float16 has only some steps there
    save_file(state, desk / "encoder" / WEIGHTS, {"format": "pt"})
    line = refused(run("model", config))
    assert 'expected cosines of at least 0.999, 99% of the pixels; save with weights_dtype = "float32"' in line
    assert contents(desk / "tiny") == before
    assert sorted(path.name for path in desk.iterdir()) == ["e.toml", "encoder", "tiny"]
    assert run("model", write_recipe(config, weights_dtype="float32")).exit_code == 0


def test_composer_command_refuses_a_composer_of_another_encoder(desk: Path) -> None:
    trained_composer(desk / "trained", trained_encoder(desk / "other", seed=1))
    line = refused(run("model", write_recipe(desk / "e.toml", composer=str(desk / "trained"))))
    assert "was trained on another encoder" in line
    assert "train it on the exported folder" in line
    assert run("model", write_recipe(desk / "e.toml")).exit_code == 0
    before = contents(desk / "tiny")
    assert "was trained on another encoder" in refused(run("composer", desk / "e.toml", desk / "trained"))
    assert contents(desk / "tiny") == before


def test_check_output_refuses_a_folder_with_other_things(desk: Path) -> None:
    (desk / "tiny").mkdir()
    (desk / "tiny" / "thesis.tex").write_text("x")
    assert "holds other things than a model (thesis.tex)" in refused(run("model", write_recipe(desk / "e.toml")))
    assert (desk / "tiny" / "thesis.tex").read_text() == "x"
    file = desk / "file"
    file.touch()
    assert "is a file; name another" in refused(run("model", write_recipe(desk / "e.toml", output=str(file))))


def test_publish_stopped_while_comparing_leaves_the_old_folder(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_recipe(desk / "e.toml")
    assert run("model", config).exit_code == 0
    (desk / "tiny" / "vocab.txt").write_text("of an earlier model")
    before = contents(desk / "tiny")
    with monkeypatch.context() as patch:
        patch.setattr(export_folder, "compare", lambda *models: sys.exit(3))
        assert run("model", config).exit_code == 3
    assert contents(desk / "tiny") == before
    assert sorted(path.name for path in desk.iterdir()) == ["e.toml", "encoder", "tiny"]
    assert run("model", config).exit_code == 0
    assert not (desk / "tiny" / "vocab.txt").exists()


# Comparing


def test_compare_finds_another_model_far_away(tmp_path: Path) -> None:
    first, second = (
        FashionModel.from_pretrained(trained_encoder(tmp_path / str(seed), seed=seed), device="cpu", dtype="float32")
        for seed in (0, 1)
    )
    found = compare(first, second)
    photos = drawn_photos()
    expected = (first.encode(images=photos) * second.encode(images=photos)).sum(1).min()
    assert found.cosines["photos"] == pytest.approx(float(expected))
    assert found.cosines.keys() == {"photos", "texts"}
    assert found.pixels is None
    with pytest.raises(WeightsError, match=r"least cosine of the saved model to the trained one: photos -?0\."):
        found.check(least_cosine=0.999, least_pixels=0.99)
    compare(first, first).check(least_cosine=0.999999, least_pixels=1)


def test_agreement_checks_segmenters_too() -> None:
    agreement = Agreement({"photos": 1.0}, pixels=0.98)
    with pytest.raises(WeightsError, match=r"segmenters agree on 98\.00% of the pixels; expected"):
        agreement.check(least_cosine=0.9, least_pixels=0.99)
    agreement.check(least_cosine=0.9, least_pixels=0.98)


def test_drawn_photos_differ_and_stay() -> None:
    photos = [np.asarray(photo) for photo in drawn_photos()]
    assert {photo.shape for photo in photos} == {(320, 240, 3)}
    shares = [float((photo < 230).any(2).mean()) for photo in photos]
    assert [round(share, 2) for share in shares] == [0.3, 0.29, 0.28, 0.18]
    assert len({photo.tobytes() for photo in photos}) == 4
