"""An exported model beside the files that it was made from: opened, and all of inference done, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.backends import attach
from fashion_retrieval.backends.compiled import ProgramSegmenter
from fashion_retrieval.backends.confirm import golden_of
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.backends.trace import trace
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.config import ProbeConfig
from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models.probe import Probe
from fashion_retrieval.models.segmenter import GarmentSegmenter
from tests.support.exported import SEGMENTER
from tests.support.exported_models import model_folder, write_graphs
from tests.support.tiny import drawn_photo

HIDDEN = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "open_clip", "timm", "torchvision", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Hidden())
"""
CHILD = """
import numpy as np
from fashion_retrieval import FashionModel, Gallery, Taxonomy

folder, photo, other, store = sys.argv[1:]
model = FashionModel.from_pretrained(folder)
gallery = Gallery.create(store, model)
gallery.add([photo, other], ids=["one", "two"])
print(json.dumps({
    "shown": repr(model), "backend": model.backend,
    "images": model.encode(images=[photo, other]).tolist(),
    "texts": model.encode(texts=["in red", "a longer text"]).tolist(),
    "query": model.compose(photo, "in red").tolist(),
    "words": dict(model.explain(photo, "in red").words),
    "garments": [[g.box, g.kind, g.category.probability] for g in model.recognize(photo).garments],
    "many": [len(found.garments) for found in model.recognize_many([photo, other])],
    "nearest": [match.id for match in gallery.search(model.encode(images=photo), top_k=2)],
    "torch": "torch" in sys.modules,
}))
"""


REFUSED = """
from fashion_retrieval import FashionModel
from fashion_retrieval.errors import MissingExtraError

def told(call):
    try:
        call()
    except MissingExtraError as error:
        print(error)

folder, blind, photo = sys.argv[1:]
model = FashionModel.from_pretrained(folder)
told(lambda: FashionModel.from_pretrained(folder, backend="torch"))
told(lambda: FashionModel.from_pretrained(folder, device="cuda"))
told(lambda: model.save_pretrained(folder))
told(lambda: model.fit_attribute("fit", [photo] * 4, ["a", "a", "b", "b"]))
told(lambda: FashionModel.from_pretrained(blind).recognize(photo))
"""


def with_segmenter(folder: Path) -> Path:
    """The tiny model with a segmenter of random weights, which finds something everywhere."""
    bundle = checkpoint.load(model_folder(folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        segmenter = GarmentSegmenter(SEGMENTER).eval()
        segmenter.head[1].bias.data = torch.tensor([0.0, -9, 9])
    assert bundle.config is not None
    checkpoint.save(replace(bundle, segmenter=segmenter, config=replace(bundle.config, segmenter=SEGMENTER)), folder)
    return folder


pytestmark = pytest.mark.filterwarnings("ignore")
"""Converters warn; the package runs them in a child process."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = with_segmenter(tmp_path_factory.mktemp("model"))
    bundle, out = checkpoint.load(folder), folder / "openvino"
    out.mkdir()
    write_graphs(folder, "openvino", out)
    (graph,) = [graph for graph in trace(bundle.encoder, None, bundle.segmenter) if graph.name == "segmenter"]
    runtime_of("openvino").convert(graph, out / "segmenter.xml")
    golden_of(bundle).write(out, bundle.encoder.fingerprint)
    made = attach.describe(bundle, out, backend="openvino", precision="fp32")
    replace(made, default=True, sources=attach.sources(folder)).write(out)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    drawn_photo(seed=1).resize((90, 130)).save(paths[0])
    drawn_photo(seed=2).resize((200, 120)).save(paths[1])
    return paths


def test_a_child_without_torch_gets_what_torch_gives(exported: Path, photos: list[Path], tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HIDDEN + CHILD, exported, *photos, tmp_path / "gallery"]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["torch"] is False
    assert found["backend"] == "openvino fp32"
    assert "float32, openvino fp32)" in found["shown"]
    plain = FashionModel.from_pretrained(exported, device="cpu", dtype="float32", backend="torch")
    np.testing.assert_allclose(found["images"], plain.encode(images=photos), atol=5e-6)
    np.testing.assert_allclose(found["texts"], plain.encode(texts=["in red", "a longer text"]), atol=5e-6)
    np.testing.assert_allclose(found["query"], plain.compose(photos[0], "in red"), atol=2e-4)
    assert found["words"] == pytest.approx(dict(plain.explain(photos[0], "in red").words), abs=1e-2)
    garments = plain.recognize(photos[0]).garments
    assert len(garments) == len(found["garments"]) > 0
    for garment, (box, kind, probability) in zip(garments, found["garments"], strict=True):
        np.testing.assert_allclose(box, garment.box, atol=3)  # photos are shrunk by Pillow here, by torch there
        assert kind == garment.kind
        assert probability == pytest.approx(garment.category.probability, abs=0.02)
    assert found["many"] == [len(one.garments) for one in plain.recognize_many(photos) if hasattr(one, "garments")]
    assert found["nearest"] == ["one", "two"]


def test_what_needs_torch_says_so_in_one_line(exported: Path, photos: list[Path], tmp_path: Path) -> None:
    blind = model_folder(tmp_path / "blind")  # it has no segmenter of its own
    bundle, out = checkpoint.load(blind), blind / "openvino"
    out.mkdir()
    write_graphs(blind, "openvino", out)
    golden_of(bundle).write(out, bundle.encoder.fingerprint)
    made = attach.describe(bundle, out, backend="openvino", precision="fp32")
    replace(made, default=True, sources=attach.sources(blind)).write(out)
    arguments = [sys.executable, "-c", HIDDEN + REFUSED, exported, blind, photos[0]]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    line = "PyTorch is needed for this and can't be imported (No module named 'torch'); run: pip install torch, or "
    assert done.stdout.splitlines() == [line + "use a model with its export beside it"] * 5


def test_files_of_another_model_are_not_taken_for_those_that_were_loaded(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    models = [FashionModel.from_pretrained(folder, device="cpu", dtype="float32", backend=b) for b in ("auto", "torch")]
    assert [model.backend for model in models] == ["openvino fp32", "torch"]
    bundle = checkpoint.load(folder)
    assert bundle.composer is not None
    with torch.no_grad():
        for parameter in bundle.composer.parameters():
            parameter.mul_(2)
    checkpoint.save(bundle, folder)  # the encoder is what it was
    for model in models:
        with pytest.raises(WeightsError, match=r"model holds another model than when it was loaded; load it again$"):
            model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_probe_of_another_encoder_is_refused_beside_an_export(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    bundle = checkpoint.load(folder)
    assert bundle.config is not None
    probe = {"fit": ProbeConfig(values=("slim", "wide"), encoder=bundle.encoder.fingerprint)}
    extras = Extras(probes={"fit": Probe.start(("slim", "wide"), 16)})
    checkpoint.save(replace(bundle, extras=extras, config=replace(bundle.config, probes=probe)), folder)
    opened = FashionModel.from_pretrained(folder, device="cpu")
    assert (opened.backend, list(opened._extras.probes)) == ("openvino fp32", ["fit"])
    path = folder / "fashion_retrieval.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    about["probes"]["fit"]["encoder"] = "0" * 64
    path.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"^the probe of 'fit' in .* was trained on another encoder \(000000000000…"):
        FashionModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (64, 64), (333, 250)])
def test_the_segmenter_is_a_program_for_photos_of_any_shape(exported: Path, size: tuple[int, int]) -> None:
    ours: Any = FashionModel.from_pretrained(exported, device="cpu").segmenter
    theirs: Any = FashionModel.from_pretrained(exported, device="cpu", backend="torch").segmenter
    assert isinstance(ours, ProgramSegmenter)
    photo = drawn_photo(seed=4).resize(size)
    got, expected = ours.probabilities(photo), theirs.probabilities(photo)
    assert got.shape == expected.shape == (3, size[1], size[0])
    np.testing.assert_allclose(got.sum(0), 1, atol=1e-5)
    assert np.abs(got - expected).mean() < 5e-3


def test_what_lies_beside_it_decides_whether_torch_is_needed(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    opened = FashionModel.from_pretrained(folder, device="cpu")
    assert "_bundle" not in vars(opened)  # no module was built
    assert opened.encoder.fingerprint == opened.fingerprint
    assert opened.composer_digest == FashionModel.from_pretrained(folder, backend="torch").composer_digest
    manifest = Export.read(folder / "openvino")
    assert manifest is not None
    replace(manifest, sources={}).write(folder / "openvino")  # as another program copies it, or from a release before
    by_modules = FashionModel.from_pretrained(folder, device="cpu")
    assert by_modules.backend == "openvino fp32"
    assert "_bundle" not in vars(by_modules)
    np.testing.assert_array_equal(by_modules.encode(texts=["in red"]), opened.encode(texts=["in red"]))
    assert by_modules.segmenter is not None
