"""FashionModel on the embedded weights and on a tiny model."""

import re
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval._utils.files import sha256
from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.hub.download import resolve
from fashion_retrieval.results import Failure, Recognition
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo

PHOTO = ROOT / "examples/astronaut.jpg"
BOX = [[20.0, 150.0, 500.0, 512.0]]


@pytest.fixture(scope="module")
def model():
    return FashionModel.from_pretrained(device="cpu", dtype="float32", backend="torch")


def test_embeddings_equal_plain_open_clips(model):
    name = f"local-dir:{resolve('compact')}"
    clip, _, transform = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(["a photo of red dress"])
    with torch.inference_mode():
        image = clip.eval().encode_image(transform(Image.open(PHOTO).convert("RGB"))[None], normalize=True)
        text = clip.encode_text(tokens, normalize=True)
    assert (model.encode(images=PHOTO) * image.numpy()).sum() > 0.99999  # a level of 255 differs here and there
    np.testing.assert_allclose(model.encode(texts="a photo of red dress"), text.numpy(), atol=1e-5)


def test_every_kind_of_input_gives_the_same_embedding(model):
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))
    same = [PHOTO.read_bytes(), Image.open(PHOTO), pixels, torch.from_numpy(pixels.copy()).permute(2, 0, 1)]
    rows = model.encode(images=[PHOTO, *same])
    assert rows.dtype == np.float32
    assert rows.shape == (5, model.embedding_dim)
    np.testing.assert_allclose(rows, rows[:1].repeat(5, 0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_photos_are_read_as_they_are_needed(model):
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))
    taken, held = [], []

    def photos():
        for number in range(7):
            taken.append(number)
            yield pixels[::4, ::4] // (number + 1)

    plain, encode = model.encode(images=list(photos())), model.towers.encode_images
    taken.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.towers, "encode_images", lambda batch: held.append(len(taken)) or encode(batch))
        rows = model.encode(images=photos(), batch_size=3)
    assert held == [3, 6, 7]
    np.testing.assert_allclose(rows, plain, atol=1e-5)
    assert model.encode(images=iter(())).shape == (0, model.embedding_dim)


def test_the_message_of_a_bad_photo_says_which(model, tmp_path):
    with pytest.raises(InputError, match=r"^images\[1\]: photo .*gone.jpg' does not exist"):
        model.encode(images=(photo for photo in (PHOTO, tmp_path / "gone.jpg", PHOTO)))


def test_encode_iter_gives_the_rows_of_encode_with_digests(model, tmp_path):
    photo = Image.open(PHOTO)
    given = []
    for number in range(5):
        given.append(tmp_path / f"{number}.png")
        photo.resize((60 + number, 90)).save(given[-1])
    found = list(model.encode_iter(given, batch_size=2))
    assert [one.index for one in found] == [0, 1, 2, 3, 4]
    assert [one.digest for one in found] == [sha256(path) for path in given]
    np.testing.assert_array_equal([one.embedding for one in found], model.encode(images=given, batch_size=2))
    assert found[0].embedding.dtype == np.float32


def test_encode_iter_skips_or_raises_a_photo_that_cannot_be_read(model, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no photo")
    photos = [PHOTO, bad, PHOTO]
    first, failed, last = model.encode_iter(photos, on_error="skip")
    assert (failed.index, failed.embedding.index, failed.embedding.source) == (1, 1, "bad.jpg")
    assert failed.digest == sha256(bad)
    np.testing.assert_array_equal(first.embedding, last.embedding)
    stream = model.encode_iter(photos)
    assert next(stream).index == 0
    with pytest.raises(InputError, match=r"^images\[1\]: photo .*bad.jpg' is not a photo"):
        next(stream)
    with pytest.raises(InputError, match="over max_pixels=10"):
        list(model.encode_iter([PHOTO], max_pixels=10))
    with pytest.raises(InputError, match="on_error must be 'raise' or 'skip', got 'stop'"):
        model.encode_iter([PHOTO], on_error="stop")


def test_texts_seen_before_are_not_encoded_again(model, monkeypatch):
    texts = ["a photo of a coat", "a photo of a very long coat", "a photo of a coat"]
    rows = model.encode(texts=texts)
    np.testing.assert_array_equal(rows[0], rows[2])
    monkeypatch.setattr(model.towers, "encode_texts", None)
    np.testing.assert_array_equal(model.encode(texts=texts[::-1]), rows[::-1])


def test_bfloat16_holds_its_weights_and_gives_float32(model):
    fast = FashionModel.from_pretrained(device="cpu", dtype="bfloat16", backend="torch")
    precise = {name for name, p in fast.towers.encoder.named_parameters() if p.ndim and p.dtype != torch.bfloat16}
    assert {".".join(name.split(".")[3:5]) for name in precise} == {"conv_stem.weight", "conv_stem.bias", "blocks.0"}
    assert {p.dtype for p in fast.segmenter.parameters()} == {torch.float32}
    assert fast.fingerprint == model.fingerprint
    assert fast.towers.logit_scale == model.towers.logit_scale
    for asked, least in (({"images": PHOTO}, 0.9998), ({"texts": "a photo of red dress"}, 0.9999)):
        rows = fast.encode(**asked)
        assert rows.dtype == np.float32
        assert (rows * model.encode(**asked)).sum() > least


def test_a_changed_configuration_counts_at_once(model, monkeypatch):
    group = next(iter(model.recognize(PHOTO, boxes=BOX).garments[0].attributes))
    monkeypatch.setattr(model, "config", replace(model.config, thresholds={group: 1.01}))
    assert model.recognize(PHOTO, boxes=BOX).garments[0].attributes[group].value is None


def test_a_box_is_one_garment_with_an_orange_color(model):
    found = model.recognize(PHOTO, boxes=BOX, top_k=2)
    garment = found.garments[0]
    assert len(found.garments) == 1
    assert garment.box == tuple(BOX[0])
    assert garment.color == "orange"
    assert len(garment.categories) == 2
    assert garment.mask.shape == (found.height, found.width)


def test_without_a_segmenter_the_photo_is_one_region(model):
    found = model.recognize(PHOTO, segmenter=None)
    assert found.garments[0].box == (0, 0, found.width, found.height)
    assert found.garments[0].mask.all()


@pytest.mark.parametrize("size", [(20_000, 10), (3, 9_000), (1, 1)])
def test_thin_strips_are_encoded(model, size):
    row = model.encode(images=Image.new("RGB", size, "red"))
    assert row.shape == (1, model.embedding_dim)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


def test_a_vocabulary_of_ones_own(model):
    own = {
        "category": {"values": ["orange space suit", "blue jeans"]},
        "attributes": {"era": {"values": ["modern", "medieval"]}},
    }
    garment = model.recognize(PHOTO, boxes=BOX, taxonomy=own).garments[0]
    assert garment.category.name == "orange space suit"
    assert garment.attributes["era"].probability + garment.attributes["era"].alternatives[
        1
    ].probability == pytest.approx(1)


def test_a_bad_photo_in_a_batch_does_not_lose_the_good_ones(model, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no photo")
    results = list(model.recognize_many([PHOTO, bad, PHOTO], segmenter=None, on_error="skip"))
    assert [type(r) for r in results] == [Recognition, Failure, Recognition]
    assert results[1].index == 1
    assert results[0].to_dict() == results[2].to_dict()
    one_by_one = model.recognize_many([PHOTO, bad, PHOTO], segmenter=None)
    alone, together = next(one_by_one).garments[0], results[0].garments[0]
    assert alone.category.name == together.category.name
    assert alone.category.probability == pytest.approx(together.category.probability, abs=1e-4)
    with pytest.raises(InputError, match=r"bad\.jpg"):
        next(one_by_one)


def test_save_load_save_is_byte_identical(model, tmp_path):
    model.save_pretrained(tmp_path / "a")
    FashionModel.from_pretrained(tmp_path / "a", device="cpu").save_pretrained(tmp_path / "b")
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {p.name for p in (tmp_path / "b").iterdir()}
    differing = {n for n in names if (tmp_path / "a" / n).read_bytes() != (tmp_path / "b" / n).read_bytes()}
    assert differing <= {"README.md"}  # the card names the model as it was loaded


@pytest.mark.parametrize(
    "arguments", [{}, {"images": PHOTO, "texts": "a"}, {"texts": ""}, {"texts": "a", "batch_size": 0}]
)
def test_what_encode_refuses(model, arguments):
    with pytest.raises(InputError):
        model.encode(**arguments)


@pytest.mark.parametrize("wrong", [True, False, 0, -1, 5.0, "9"])
def test_max_pixels_must_be_a_whole_number(model, wrong):
    message = re.escape(f"max_pixels must be a whole number of at least 1 or None, got {wrong!r}")
    for call in (
        lambda: model.recognize(PHOTO, max_pixels=wrong),
        lambda: model.recognize_many([PHOTO], max_pixels=wrong),
        lambda: model.encode(images=PHOTO, max_pixels=wrong),
        lambda: model.encode_iter([PHOTO], max_pixels=wrong),
        lambda: model.reference(PHOTO, max_pixels=wrong),
        lambda: model.compose(PHOTO, "red", max_pixels=wrong),
        lambda: model.fit_attribute("fit", [PHOTO], ["loose"], max_pixels=wrong),
    ):
        with pytest.raises(InputError, match=f"^{message}$"):
            call()


def test_max_pixels_holds_wherever_a_photo_is_taken(model, tmp_path):
    photo = drawn_photo((20, 10))
    for call in (
        lambda limit: model.encode(images=photo, max_pixels=limit),
        lambda limit: model.reference(photo, max_pixels=limit),
        lambda limit: model.compose(photo, None, max_pixels=limit),
    ):
        assert len(call(np.int64(200))) == 1
        with pytest.raises(ImageError, match="20x10 pixels, over max_pixels=199; shrink it or raise max_pixels"):
            call(199)
    with Gallery.create(tmp_path / "gallery", model) as gallery:
        failed = gallery.add([photo], ["a"], on_error="skip", max_pixels=199).failures
        assert "over max_pixels=199" in str(failed[0].error)
        assert gallery.add([photo], ["a"], max_pixels=200).added == 1
        with pytest.raises(InputError, match="max_pixels must be a whole number of at least 1 or None, got True"):
            gallery.add([photo], ["a"], max_pixels=True)
