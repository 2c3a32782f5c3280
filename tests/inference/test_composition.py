"""FashionModel.compose and reference: pairs, lists, what is left out, what is refused, and the weights on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_retrieval import FashionModel, Match, Reference, checkpoint
from fashion_retrieval.config import ComposerConfig, ModelConfig
from fashion_retrieval.errors import ConfigError, InputError, UnsupportedError, WeightsError
from fashion_retrieval.models.composer import Composer
from tests.support.tiny import altered, drawn_photo, tiny_folder

TIMM = altered(
    vision_cfg={"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear",
                "timm_proj_bias": True, "image_size": 64}, custom_text=True,
)  # fmt: skip


def with_composer(folder, variant="agcn"):
    """A tiny model with random composer weights."""
    bundle = checkpoint.load(folder)
    shape = ComposerConfig(
        embedding_dim=16, variant=variant, width=8, depth=2, heads=2, hidden=16, encoder=bundle.encoder.fingerprint
    )
    composer = Composer(shape).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in composer.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return replace(bundle, composer=composer, config=ModelConfig(name="tiny", composer=shape))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return FashionModel(with_composer(folder), model_id="tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        drawn_photo((40, 56), seed=seed).save(path)
    return paths


TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]


@pytest.mark.parametrize("config", [altered(), TIMM], ids=["vit", "cnn"])
def test_tokens_are_what_encode_gives(config, tmp_path, photos):
    encoder = checkpoint.load(tiny_folder(tmp_path, config)).encoder
    pixels = torch.stack([encoder.preprocess(Image.open(photo).convert("RGB")) for photo in photos])
    with torch.inference_mode():
        tokens = encoder.image_tokens(pixels)
        pooled = torch.nn.functional.normalize(tokens[:, 0], dim=-1)
        torch.testing.assert_close(pooled, encoder.encode_image(pixels), atol=1e-6, rtol=0)
        if config is TIMM:
            assert tokens.shape == (3, 1 + 4, 16)  # 64 px at stride 32
            torch.testing.assert_close(tokens[:, 1:].mean(1), tokens[:, 0], atol=1e-5, rtol=0)
        else:
            assert tokens.shape == (3, 1 + 16, 16)  # 32 px in patches of 8
        words = encoder.tokenize(TEXTS)
        states, lengths = encoder.text_tokens(words)
        assert lengths.tolist() == [4, 10, 3]
        ends = torch.nn.functional.normalize(states[torch.arange(3), lengths - 1], dim=-1)
        torch.testing.assert_close(ends, encoder.encode_text(words), atol=1e-6, rtol=0)


def test_pairs_and_lists(model, photos):
    together = model.compose(photos, TEXTS)
    assert together.shape == (3, 16)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for photo, text, row in zip(photos, TEXTS, together, strict=True):
        np.testing.assert_allclose(model.compose(photo, text), [row], atol=1e-6)
    np.testing.assert_allclose(model.compose(photos, TEXTS, batch_size=1), together, atol=1e-6)


def test_a_reference_is_the_photo(model, photos, monkeypatch):
    expected = model.compose(photos, TEXTS)
    references = model.reference(photos)
    assert [r.source for r in references] == ["0.png", "1.png", "2.png"]
    np.testing.assert_allclose([r.embedding for r in references], model.encode(images=photos), atol=2e-3)  # float16
    matches = [Match(str(i), 1.0, str(photo)) for i, photo in enumerate(photos)]
    opened = [Image.open(photo) for photo in photos]
    for given in (references, matches, opened, [np.asarray(image.convert("RGB")) for image in opened]):
        np.testing.assert_allclose(model.compose(given, TEXTS), expected, atol=1e-6)
    calls = []
    monkeypatch.setattr(model.towers, "image_tokens", lambda levels: calls.append(len(levels)))
    np.testing.assert_allclose(model.compose(references, TEXTS), expected, atol=1e-6)
    assert calls == []  # nothing is encoded again


def test_a_photo_that_comes_twice_is_encoded_once(model, photos, monkeypatch):
    whole, sizes = model.towers.image_tokens, []
    monkeypatch.setattr(model.towers, "image_tokens", lambda levels: sizes.append(len(levels)) or whole(levels))
    model.compose([photos[0], str(photos[0]), photos[1]], TEXTS)
    assert sizes == [2]


def test_either_side_may_be_left_out(model, photos):
    np.testing.assert_allclose(model.compose(None, "in red"), model.encode(texts="in red"), atol=1e-6)
    image = model.encode(images=photos[0])
    np.testing.assert_allclose(model.compose(photos[0], None), image, atol=2e-3)
    np.testing.assert_allclose(model.compose(photos, None), model.encode(images=photos), atol=2e-3)
    mixed = model.compose([photos[0], None, photos[2]], ["in red", "in blue", None])
    expected = [model.compose(photos[0], "in red"), model.encode(texts="in blue"), model.compose(photos[2], None)]
    np.testing.assert_allclose(mixed, np.concatenate(expected), atol=1e-6)


def test_text_weight_goes_from_photo_to_text(model, photos):
    usual = model.compose(photos[0], "in red")
    np.testing.assert_array_equal(usual, model.compose(photos[0], "in red", text_weight=0.5))
    photo, text = (model.compose(photos[0], "in red", text_weight=w) for w in (0, 1))
    assert float((photo * text).sum()) < 0.99
    np.testing.assert_array_equal(photo, model.compose(photos[0], None))
    np.testing.assert_array_equal(text, model.encode(texts="in red"))
    for weight in (-0.1, 1.1, "much", float("nan"), True):
        with pytest.raises(InputError, match="text_weight"):
            model.compose(photos[0], "in red", text_weight=weight)


@pytest.mark.parametrize("variant", ["agcn", "sum"])
def test_text_weight_is_monotone(folder, photos, variant):
    model = FashionModel(with_composer(folder, variant), model_id="tiny", device="cpu", dtype="float32")
    weights = np.linspace(0, 1, 9)
    rows = np.stack([model.compose(photos, TEXTS, text_weight=weight) for weight in weights])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=2), 1, atol=1e-6)
    to_photo, composed, to_text = ((rows * rows[place]).sum(2) for place in (0, 4, 8))
    assert (np.diff(to_photo[:5], axis=0) < 0).all()
    assert (np.diff(to_text[4:], axis=0) > 0).all()
    assert (np.diff(composed[:5], axis=0) > 0).all()
    assert (np.diff(composed[4:], axis=0) < 0).all()
    if variant == "sum":  # whose query lies between the two; random weights put it anywhere
        assert (np.diff(to_photo, axis=0) < 0).all()
        assert (np.diff(to_text, axis=0) > 0).all()
    quarter = rows[0] + rows[4]
    np.testing.assert_allclose(rows[2], quarter / np.linalg.norm(quarter, axis=1, keepdims=True), atol=1e-6)


def test_explain_gives_the_query_its_parts_and_its_words(model, photos):
    text = "in red, with  long sleeves"
    told = model.explain(photos[0], text)
    np.testing.assert_allclose(told.query, model.compose(photos[0], text), atol=1e-6)
    encoder, composer = model.encoder, model._bundle.composer
    with torch.inference_mode():
        image = torch.from_numpy(model.reference(photos[0])[0].tokens[None]).float()
        kept, changed, gates = composer.parts(image, *encoder.text_tokens(encoder.tokenize([text])))
        query = (kept + changed)[0]
        expected = float((kept[0] @ query) / (query @ query))
    assert told.photo == pytest.approx(min(max(expected, 0), 1), abs=1e-5)
    assert told.photo + told.text == 1
    assert told.gates == pytest.approx(gates[0].tolist(), abs=1e-6)
    words = text.split()
    without = [" ".join(words[:place] + words[place + 1 :]) for place in range(5)]
    moved = 1 - (model.compose([photos[0]] * 5, without) @ told.query[0])
    assert [word for word, _ in told.words] == words
    np.testing.assert_allclose([share for _, share in told.words], moved / moved.sum(), atol=1e-4)
    assert model.explain(model.reference(photos[0])[0], text).to_dict() == told.to_dict()


def test_explain_follows_text_weight(model, photos):
    weights = (0, 0.25, 0.5, 0.75, 1)
    told = [model.explain(photos[0], "in red", text_weight=weight) for weight in weights]
    for weight, one in zip(weights, told, strict=True):
        np.testing.assert_allclose(one.query, model.compose(photos[0], "in red", text_weight=weight), atol=1e-6)
    assert (told[0].photo, told[-1].photo) == (pytest.approx(1, abs=1e-6), 0)
    assert told[1].photo > told[2].photo > told[3].photo
    assert [share for _, share in told[0].words] == [0, 0]  # no word moves the photo's own embedding
    assert sum(share for _, share in told[-1].words) == pytest.approx(1)


def test_explain_a_photo_or_a_text_alone(model, photos):
    photo, text, word = (model.explain(*given) for given in ((photos[0], None), (None, "in red"), (None, "red")))
    assert (photo.photo, photo.text, photo.gates, photo.words) == (1, 0, None, ())
    assert (text.photo, text.text, text.gates) == (0, 1, None)
    assert word.words == (("red", 1.0),)
    np.testing.assert_array_equal(photo.query, model.compose(photos[0], None))
    np.testing.assert_allclose(text.query, model.encode(texts="in red"), atol=1e-6)
    parts = model.encode(texts=["red", "in"]) @ text.query[0]
    np.testing.assert_allclose([share for _, share in text.words], (1 - parts) / (1 - parts).sum(), atol=1e-4)
    assert str(word) == "photo 0 % / text 100 % · red 100 %"
    assert word.to_dict() == {"photo": 0.0, "text": 1.0, "gates": None, "words": [{"word": "red", "share": 1.0}]}


def test_explain_reads_as_many_words_as_the_model(model, photos, monkeypatch):
    sizes, run = [], model.towers.text_tokens
    monkeypatch.setattr(model.towers, "text_tokens", lambda texts: sizes.append(len(texts)) or run(texts))
    told = model.explain(photos[0], "red " * 500)
    assert sizes == [78, 1]  # one batch of the text and of those without a word, and one more for its parts
    assert [share for _, share in told.words[77:]] == [0] * 423


@pytest.mark.parametrize(
    ("reference", "text", "words"),
    [
        ([], None, "explain expects one photo and one text, got a list; call it once for each"),
        ("0.png", ["in red"], "explain expects one photo and one text, got a list"),
        (None, None, "neither"),
        ("0.png", " ", "must be a text that is not empty"),
        ("gone.png", "in red", "gone.png"),
    ],
)
def test_explain_refuses(model, photos, reference, text, words, monkeypatch):
    monkeypatch.chdir(photos[0].parent)
    with pytest.raises(InputError, match=words) as caught:
        model.explain(reference, text)
    assert "\n" not in str(caught.value)


def test_references_without_their_tokens_are_refused(model, photos):
    whole = model.reference(photos[0])[0]
    pooled, cut, wide = (replace(whole, tokens=t) for t in (whole.tokens[:1], whole.tokens[:9], whole.tokens[:, :8]))
    lacks = r"reference_image\[0\] must have its local tokens, to be composed with a text, got 1 rows"
    for ask in (model.compose, model.explain):
        with pytest.raises(InputError, match=lacks):
            ask(pooled, "in red")
        with pytest.raises(InputError, match=r"reference_image\[0\] must have tokens of width 16, got 8; make it with"):
            ask(wide, "in red")
    with pytest.raises(InputError, match=r"reference_image\[1\] must have its local tokens.*got 9 rows"):
        model.compose([whole, cut], ["in red", "in blue"])
    np.testing.assert_allclose(model.compose(pooled, None), model.compose(photos[0], None))


@pytest.mark.parametrize(
    ("reference", "text", "words"),
    [
        (None, None, "neither"),
        ("0.png", "", r"modification_text\[0\]"),
        ("0.png", "  ", r"modification_text\[0\]"),
        ("0.png", 7, r"modification_text\[0\]"),
        (["0.png", "1.png"], ["in red"], "got 2 and 1"),
        (["0.png", "1.png"], "in red", "a list beside one"),
        ("0.png", ["in red"], "a list beside one"),
        (["0.png", None], ["in red", None], "pair 1 has neither"),
        (["0.png", "gone.png"], ["in red", "in blue"], r"reference_image\[1\].*gone.png"),
        (Match("a", 0.5), "in red", "'a', has no photo"),
        (Reference(np.zeros((3, 16), np.float16) + 1, "f" * 64), "in red", "must be encoded by this model"),
    ],
)
def test_what_is_refused(model, photos, reference, text, words, monkeypatch):
    monkeypatch.chdir(photos[0].parent)
    with pytest.raises(InputError, match=words) as caught:
        model.compose(reference, text)
    assert "\n" not in str(caught.value)


def test_a_reference_is_checked():
    for tokens in (np.zeros((3, 16), np.float32), np.zeros((0, 16), np.float16), None, [[1.0]]):
        with pytest.raises(InputError, match=r"must be \(1 \+ k, D\) float16, got "):
            Reference(tokens, "f" * 64)
    for tokens in ([[1.0], [1.0, 2.0]], torch.ones(3, 16), "tokens"):
        with pytest.raises(InputError, match=r"must be \(1 \+ k, D\) float16, got .*; make it with model.reference"):
            Reference(tokens, "f" * 64)
    good = np.ones((3, 16), np.float16)
    for row, value in ((0, 0), (0, np.nan), (2, np.inf)):
        tokens = good.copy()
        tokens[row] = value
        with pytest.raises(InputError, match="must be finite with a first row that is not 0"):
            Reference(tokens, "f" * 64)
    for fingerprint in (None, 5, ""):
        with pytest.raises(InputError, match=f"must be an encoder's fingerprint, got {fingerprint!r}; make it with"):
            Reference(good, fingerprint)
    assert isinstance(Reference(torch.ones(3, 16).half(), "f" * 64).tokens, np.ndarray)


def test_without_a_composer(folder, photos):
    plain = FashionModel.from_pretrained(folder, device="cpu", dtype="float32")
    with pytest.raises(UnsupportedError, match="has no composer"):
        plain.compose(photos[0], "in red")
    with pytest.raises(UnsupportedError, match="has no composer"):
        plain.explain(photos[0], "in red")
    assert plain.explain(None, "in red").text == 1
    assert plain.compose(None, "in red").shape == (1, 16)
    assert len(plain.reference(photos)) == 3


def test_save_and_load(model, photos, tmp_path):
    model.save_pretrained(tmp_path / "a")
    again = FashionModel.from_pretrained(tmp_path / "a", device="cpu", dtype="float32")
    np.testing.assert_array_equal(again.compose(photos, TEXTS), model.compose(photos, TEXTS))
    again.save_pretrained(tmp_path / "b")
    for name in ("composer.safetensors", "fashion_retrieval.json", "open_clip_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_composer_of_another_encoder_is_refused(folder, tmp_path):
    bundle = with_composer(folder)
    other = checkpoint.load(tiny_folder(tmp_path / "other", seed=1))
    checkpoint.save(replace(bundle, encoder=other.encoder), tmp_path / "mixed")
    with pytest.raises(WeightsError, match="trained on another encoder"):
        checkpoint.load(tmp_path / "mixed")


def test_a_config_that_does_not_fit_the_weights(folder, tmp_path):
    checkpoint.save(with_composer(folder), tmp_path / "model")
    config = tmp_path / "model" / "fashion_retrieval.json"
    data = json.loads(config.read_text())
    data["composer"]["depth"] = 3
    config.write_text(json.dumps(data))
    with pytest.raises(WeightsError, match="another architecture"):
        checkpoint.load(tmp_path / "model")
    data["composer"] |= {"depth": 2, "heads": 3, "width": 8, "dropout": 1}
    config.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"'composer.dropout' must be a number from 0 to below 1, got 1"):
        checkpoint.load(tmp_path / "model")
    data["composer"]["dropout"] = 0.1
    config.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"'composer.heads' must divide the width, 8, got 3"):
        checkpoint.load(tmp_path / "model")
