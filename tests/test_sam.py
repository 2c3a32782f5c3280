"""Segment Anything at a size that tests can run: the real modules, 256 px and two layers, with fixed random weights."""

import hashlib
import io
import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import errors as hub_errors
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from segment_anything import SamPredictor, build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from fashion_retrieval.errors import HubError, InputError, ModelNotFoundError, WeightsError
from fashion_retrieval.models import sam as sam_module
from fashion_retrieval.models.sam import SegmentAnythingSegmenter, load_sam
from fashion_retrieval.results import Region

WIDTH, SIDE = 32, 256
PHOTO_SIZE = (400, 300)
BOXES = np.array([[40, 30, 200, 180], [220.5, 60, 399, 290], [10, 200, 120, 299]], dtype=np.float32)


def tiny_sam() -> Sam:
    """SAM as `segment_anything.build_sam` builds it, smaller."""
    grid = (SIDE // 16, SIDE // 16)
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=SIDE,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            out_chans=WIDTH,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=7,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH, image_embedding_size=grid, input_image_size=(SIDE, SIDE), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=64),
            iou_head_hidden_dim=WIDTH,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )


def filled(sam: Sam) -> Sam:
    """The same module with every tensor random, also those that start as zeros or ones."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in sam.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
    return sam.eval()


@pytest.fixture(autouse=True)
def tiny_is_an_architecture(monkeypatch):
    monkeypatch.setitem(sam_module._BUILDERS, WIDTH, tiny_sam)


@pytest.fixture(scope="module")
def sam():
    return filled(tiny_sam())


@pytest.fixture(scope="module")
def segmenter(sam):
    return SegmentAnythingSegmenter(sam, device="cpu")


@pytest.fixture
def weights_file(sam, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file(sam.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def photo():
    image = Image.new("RGB", PHOTO_SIZE, (230, 225, 215))
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 40, 190, 170), fill=(30, 60, 140))
    draw.ellipse((230, 70, 390, 280), fill=(170, 40, 50))
    return image


def reference(sam, photo, box):
    """Segment_anything's own path for one box."""
    predictor = SamPredictor(sam)
    predictor.set_image(np.asarray(photo))
    masks, quality, _ = predictor.predict(box=box, multimask_output=False)
    return masks[0], float(quality[0])


class Proposer:
    """A segmenter that always finds the same regions."""

    def __init__(self, boxes=BOXES, kind="dress", score=0.7):
        masks = [np.zeros((PHOTO_SIZE[1], PHOTO_SIZE[0]), dtype=bool) for _ in boxes]
        for mask in masks:
            mask[5:9, 5:9] = True
        self.regions = [
            Region(box=tuple(box), mask=mask, score=score, kind=kind) for box, mask in zip(boxes, masks, strict=True)
        ]
        self.calls = []

    def segment(self, image, boxes=None):
        self.calls.append((image.mode, boxes))
        return self.regions


# --- from boxes to regions


def test_regions_equal_segment_anythings_own_predictor(segmenter, sam, photo):
    regions = segmenter.segment(photo, BOXES)
    assert len(regions) == 3
    for region, box in zip(regions, BOXES, strict=True):
        mask, quality = reference(sam, photo, box)
        assert 0.01 < mask.mean() < 0.99
        assert np.array_equal(region.mask, mask)
        assert region.score == pytest.approx(min(max(quality, 0), 1), abs=1e-6)
        assert region.kind is None


def test_each_box_has_its_own_mask(segmenter, photo):
    first, second, third = (region.mask for region in segmenter.segment(photo, BOXES))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_the_regions_box_is_that_of_its_mask(segmenter, photo):
    for region in segmenter.segment(photo, BOXES):
        rows, columns = np.nonzero(region.mask)
        assert region.mask.shape == (300, 400)
        assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_batch_of_boxes_equals_one_box_at_a_time(segmenter, photo):
    together = segmenter.segment(photo, BOXES)
    alone = [segmenter.segment(photo, box[None])[0] for box in BOXES]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert one.score == pytest.approx(other.score, abs=1e-6)


def test_one_image_embedding_and_one_prompt_batch_per_photo(segmenter, sam, photo, monkeypatch):
    embedded, prompted = [], []
    monkeypatch.setattr(sam.image_encoder, "forward", spy(sam.image_encoder.forward, embedded))
    monkeypatch.setattr(sam.prompt_encoder, "forward", spy(sam.prompt_encoder.forward, prompted))
    segmenter.segment(photo, BOXES)
    assert [args[0].shape for args, _ in embedded] == [(1, 3, SIDE, SIDE)]
    assert [kwargs["boxes"].shape for _, kwargs in prompted] == [(3, 4)]


@pytest.mark.parametrize(
    ("size", "scale_x", "scale_y"),
    [((400, 300), 0.64, 0.64), ((300, 400), 0.64, 0.64), ((128, 64), 2.0, 2.0), ((500, 333), 0.512, 170 / 333)],
)
def test_boxes_reach_the_prompt_encoder_scaled_to_the_long_side(segmenter, sam, monkeypatch, size, scale_x, scale_y):
    prompted = []
    monkeypatch.setattr(sam.prompt_encoder, "forward", spy(sam.prompt_encoder.forward, prompted))
    box = np.array([[10, 20, 110, 60]], dtype=np.float32)
    segmenter.segment(Image.new("RGB", size, "gray"), box)
    ((_, kwargs),) = prompted
    assert kwargs["points"] is None
    assert kwargs["masks"] is None
    assert kwargs["boxes"].dtype == torch.float32
    expected = [10 * scale_x, 20 * scale_y, 110 * scale_x, 60 * scale_y]
    assert kwargs["boxes"].tolist() == [pytest.approx(expected, rel=1e-6)]


def test_a_box_over_the_edge_is_cut_there(segmenter, sam, photo, monkeypatch):
    prompted = []
    monkeypatch.setattr(sam.prompt_encoder, "forward", spy(sam.prompt_encoder.forward, prompted))
    segmenter.segment(photo, np.array([[-50, -5, 1000, 301]], dtype=np.float32))
    assert prompted[0][1]["boxes"].tolist() == [[0, 0, 256, 192]]


def test_where_sam_finds_nothing_the_whole_box_stands_with_score_zero(segmenter, sam, photo, monkeypatch):
    monkeypatch.setattr(sam, "mask_threshold", float("inf"))
    region = segmenter.segment(photo, np.array([[10.5, 20, 30, 40.25]], dtype=np.float32))[0]
    expected = np.zeros((300, 400), dtype=bool)
    expected[20:41, 10:30] = True
    assert region == Region(box=(10.5, 20, 30, 40.25), mask=expected, score=0.0)


def test_no_boxes_no_regions(segmenter, photo):
    assert segmenter.segment(photo, np.empty((0, 4), dtype=np.float32)) == []


def test_the_extreme_shapes_of_photos(segmenter):
    assert segmenter.segment(Image.new("RGB", (1, 1)), np.array([[0, 0, 1, 1]]))[0].mask.shape == (1, 1)
    assert segmenter.segment(Image.new("RGB", (4000, 10)), np.array([[5, 1, 900, 9]]))[0].mask.shape == (10, 4000)
    with pytest.raises(InputError, match=r"photo of 4000x1 is too narrow for SAM; crop its long side"):
        segmenter.segment(Image.new("RGB", (4000, 1)), np.array([[5, 0, 900, 1]]))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"boxes must be \(N, 4\) xyxy in pixels, got shape \(4,\)"),
        ([[1, 2, 3]], r"got shape \(1, 3\)"),
        ([[1, 2, np.nan, 4]], r"got a value that is not finite"),
        ([[1, 2, 9, 9], [500, 10, 600, 20]], r"boxes\[1\] \[500.0, 10.0, 600.0, 20.0\] is empty in the 400x300 photo"),
        ([[50, 60, 40, 90]], r"boxes\[0\] .* is empty in the 400x300 photo; pass x1 < x2, y1 < y2 inside"),
    ],
)
def test_boxes_that_cannot_be(segmenter, photo, boxes, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment(photo, np.array(boxes, dtype=np.float32))


# --- proposers


def test_a_proposers_boxes_kinds_and_scores_are_kept(sam, photo):
    proposer = Proposer()
    regions = SegmentAnythingSegmenter(sam, proposer=proposer, device="cpu").segment(photo)
    assert proposer.calls == [("RGB", None)]
    assert [(region.kind, region.score) for region in regions] == [("dress", 0.7)] * 3
    for region, box in zip(regions, BOXES, strict=True):
        assert np.array_equal(region.mask, reference(sam, photo, box)[0])


def test_the_users_boxes_go_before_the_proposer(sam, photo):
    proposer = Proposer()
    regions = SegmentAnythingSegmenter(sam, proposer=proposer, device="cpu").segment(photo, BOXES[:1])
    assert proposer.calls == []
    assert [region.kind for region in regions] == [None]


def test_where_sam_finds_nothing_the_proposers_region_stands(sam, photo, monkeypatch):
    monkeypatch.setattr(sam, "mask_threshold", float("inf"))
    proposer = Proposer()
    assert SegmentAnythingSegmenter(sam, proposer=proposer, device="cpu").segment(photo) == proposer.regions


def test_a_proposer_that_finds_nothing(sam, photo):
    assert SegmentAnythingSegmenter(sam, proposer=Proposer(boxes=[]), device="cpu").segment(photo) == []


def test_neither_boxes_nor_proposer(segmenter, photo):
    with pytest.raises(InputError, match=r"needs boxes, got none; pass boxes=..., or build it with proposer=..."):
        segmenter.segment(photo)


# --- device and dtype


def test_the_device_is_resolved(segmenter, sam):
    assert segmenter.device == torch.device("cpu")
    assert segmenter.dtype == torch.float32
    with pytest.raises(InputError, match="use 'auto'"):
        SegmentAnythingSegmenter(sam, device="tpu")


def test_only_the_image_encoder_runs_in_the_low_precision(sam, photo, monkeypatch):
    types = {}
    for name, layer in (
        ("image", sam.image_encoder.blocks[0].attn.qkv),
        ("decoder", sam.mask_decoder.transformer.layers[0].self_attn.q_proj),
    ):
        monkeypatch.setattr(layer, "forward", noting_dtype(layer.forward, types, name))
    encode = sam.prompt_encoder.pe_layer._pe_encoding
    monkeypatch.setattr(sam.prompt_encoder.pe_layer, "_pe_encoding", noting_dtype(encode, types, "prompt"))
    fast = SegmentAnythingSegmenter(sam, device="cpu", dtype="bfloat16").segment(photo, BOXES)
    assert types == {"image": torch.bfloat16, "prompt": torch.float32, "decoder": torch.float32}
    exact = SegmentAnythingSegmenter(sam, device="cpu").segment(photo, BOXES)
    assert types["image"] == torch.float32
    for one, other in zip(fast, exact, strict=True):
        assert (one.mask == other.mask).mean() > 0.95


def test_weights_neither_train_nor_change_mode(segmenter):
    assert not segmenter.sam.training
    assert not any(parameter.requires_grad for parameter in segmenter.sam.parameters())


# --- weights from files


def test_save_and_load_is_exact(weights_file, sam, segmenter, photo):
    loaded = SegmentAnythingSegmenter.from_pretrained(weights_file, device="cpu")
    tensors = loaded.sam.state_dict()
    assert tensors.keys() == sam.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in sam.state_dict().items())
    assert loaded.segment(photo, BOXES) == segmenter.segment(photo, BOXES)


def test_a_folder_holds_model_safetensors(weights_file, segmenter, photo):
    weights_file.rename(weights_file.with_name("model.safetensors"))
    loaded = SegmentAnythingSegmenter.from_pretrained(str(weights_file.parent), device="cpu")
    assert loaded.segment(photo, BOXES) == segmenter.segment(photo, BOXES)


def test_half_precision_files_load_as_float32(weights_file):
    save_file({name: tensor.half() for name, tensor in load_file(weights_file).items()}, weights_file)
    assert {tensor.dtype for tensor in load_sam(weights_file).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mask_decoder.iou_token.weight"), "mask_decoder.iou_token.weight is missing; use"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra is unknown; use"),
        (
            lambda w: w.update({"prompt_encoder.no_mask_embed.weight": torch.zeros(1, 8)}),
            r"is \(1, 8\) instead of \(1, 32\)",
        ),
        (lambda w: w.pop("image_encoder.patch_embed.proj.weight"), "ViT-H, got no image encoder"),
        (
            lambda w: w.update({"image_encoder.patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}),
            "expected SAM ViT-B, ViT-L or ViT-H, got an image encoder 384 wide; use facebook/sam-vit-base",
        ),
        (
            lambda w: w.update({"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}),
            r"is not a SAM: .* is missing; .* and \d+ more; use facebook/sam-vit-base",
        ),
    ],
)
def test_weights_of_another_architecture(weights_file, change, message):
    weights = load_file(weights_file)
    change(weights)
    save_file(weights, weights_file)
    with pytest.raises(WeightsError, match=message):
        load_sam(weights_file)


def test_a_truncated_file(weights_file):
    weights_file.write_bytes(weights_file.read_bytes()[:-1000])
    with pytest.raises(
        WeightsError, match=r"tiny.safetensors is truncated or no safetensors file .*; download it again"
    ):
        load_sam(weights_file)


@pytest.mark.parametrize("name", ["no/such/sam.safetensors", "sam_vit_b_01ec64.pth", "./sam", "/no/folder"])
def test_a_missing_file_never_asks_the_hub(name, monkeypatch):
    monkeypatch.setattr(sam_module, "hf_hub_download", refuse)
    with pytest.raises(ModelNotFoundError, match="found no such file; use facebook/sam-vit-base"):
        SegmentAnythingSegmenter.from_pretrained(name)


# --- the official checkpoints


@pytest.fixture
def official(sam, tmp_path, monkeypatch):
    """A checkpoint whose digest is on the list."""
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    return trusted(path, monkeypatch)


def trusted(path, monkeypatch):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(sam_module.OFFICIAL_SHA256, digest, path.name)
    return path


def test_an_official_checkpoint_loads(official, segmenter, photo):
    assert SegmentAnythingSegmenter.from_pretrained(official, device="cpu").segment(photo, BOXES) == segmenter.segment(
        photo, BOXES
    )


def test_an_altered_official_checkpoint_is_refused(official):
    content = bytearray(official.read_bytes())
    content[len(content) // 2] ^= 1
    official.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"sam_vit_b_01ec64.pth has sha256 [0-9a-f]{12}…, .* altered .*download it again"
    ):
        load_sam(official)


def test_the_digests_are_three_sha256_of_the_published_names():
    names = set(sam_module.OFFICIAL_SHA256.values())
    assert names == {"sam_vit_b_01ec64.pth", "sam_vit_l_0b3195.pth", "sam_vit_h_4b8939.pth"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in sam_module.OFFICIAL_SHA256)


class Bomb:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_a_pickle_is_never_executed(tmp_path, monkeypatch, legacy, listed):
    marker, path = tmp_path / "executed", tmp_path / "sam_vit_b_01ec64.pth"
    buffer = io.BytesIO()
    torch.save({"weights": Bomb(marker)}, buffer, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(buffer.getvalue())
    if listed:
        trusted(path, monkeypatch)
    with pytest.raises(WeightsError, match="can't be read as plain tensors" if listed else "which none of"):
        load_sam(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


def test_other_pickles_are_not_even_opened(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.touch()
    with pytest.raises(WeightsError, match=r"expected a .safetensors file or an official .*, got pytorch_model.bin"):
        load_sam(path)


# --- the Hub


def test_a_repository_is_downloaded_through_the_hub(weights_file, monkeypatch, segmenter, photo, tmp_path):
    calls = []

    def download(*args, **kwargs):
        calls.append((args, kwargs))
        return str(weights_file)

    monkeypatch.setattr(sam_module, "hf_hub_download", download)
    loaded = SegmentAnythingSegmenter.from_pretrained(
        "org/sam", revision="abc", cache_dir=tmp_path, local_files_only=True, token="hf_x", device="cpu"
    )
    assert loaded.segment(photo, BOXES) == segmenter.segment(photo, BOXES)
    expected = {"revision": "abc", "cache_dir": tmp_path, "local_files_only": True, "token": "hf_x"}
    assert calls == [(("org/sam", "model.safetensors"), expected)]


def test_offline_and_not_in_the_cache(tmp_path):
    with pytest.raises(
        ModelNotFoundError, match=r"org/sam at v1 is not in the cache and downloads are off; load it once"
    ):
        SegmentAnythingSegmenter.from_pretrained("org/sam", revision="v1", cache_dir=tmp_path, local_files_only=True)


def test_a_name_that_no_repository_can_have(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no file, folder or Hub repository a/b/c; use facebook/sam-vit-base"):
        SegmentAnythingSegmenter.from_pretrained("a/b/c", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        (hub_errors.GatedRepoError, HubError, "org/sam is gated; accept its terms"),
        (hub_errors.RepositoryNotFoundError, ModelNotFoundError, "no file, folder or Hub repository org/sam"),
        (hub_errors.RevisionNotFoundError, ModelNotFoundError, "no file, folder or Hub repository org/sam"),
        (hub_errors.RemoteEntryNotFoundError, ModelNotFoundError, "org/sam has no model.safetensors"),
        (hub_errors.OfflineModeIsEnabled, ModelNotFoundError, "downloads are off"),
        (ConnectionResetError, HubError, r"can't download org/sam \(ConnectionResetError: .*\); check the network"),
    ],
)
def test_what_the_hub_says_becomes_one_line(monkeypatch, kind, expected, message):
    error = kind.__new__(kind)
    error.args = ("several\nlines",)
    monkeypatch.setattr(sam_module, "hf_hub_download", partial(throw, error))
    with pytest.raises(expected, match=message) as caught:
        SegmentAnythingSegmenter.from_pretrained("org/sam")
    assert "\n" not in str(caught.value)


def test_no_network_is_told_from_not_in_the_cache(monkeypatch):
    error = hub_errors.LocalEntryNotFoundError("not found")
    error.__cause__ = ConnectionRefusedError("refused")
    monkeypatch.setattr(sam_module, "hf_hub_download", partial(throw, error))
    with pytest.raises(HubError, match=r"can't download org/sam \(ConnectionRefusedError: refused\)"):
        SegmentAnythingSegmenter.from_pretrained("org/sam")


# --- transformers' layout


@pytest.fixture(scope="module")
def transformers_sam():
    transformers = pytest.importorskip("transformers")
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": WIDTH,
            "output_channels": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "window_size": 7,
            "global_attn_indexes": [1],
            "num_pos_feats": WIDTH // 2,
        },
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE},
        mask_decoder_config={
            "hidden_size": WIDTH,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": WIDTH,
            "layer_norm_eps": 1e-5,
        },
    )
    model = transformers.SamModel(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(
            model.shared_image_embedding.positional_embedding
        )
    return model.eval()


@pytest.mark.parametrize("twice", [True, False])
def test_weights_of_transformers_give_the_same_masks(transformers_sam, tmp_path, photo, twice):
    weights = {name: tensor.contiguous().clone() for name, tensor in transformers_sam.state_dict().items()}
    if not twice:
        del weights["prompt_encoder.shared_embedding.positional_embedding"]
    save_file(weights, tmp_path / "model.safetensors")
    sam = load_sam(tmp_path / "model.safetensors").eval()
    predictor = SamPredictor(sam)
    predictor.set_image(np.asarray(photo))
    boxes = torch.from_numpy(predictor.transform.apply_boxes(BOXES, (300, 400))).float()
    _, quality, logits = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False, return_logits=True)

    resized = torch.as_tensor(predictor.transform.apply_image(np.asarray(photo))).permute(2, 0, 1)
    pixels = sam.preprocess(resized[None].float())
    with torch.inference_mode():
        theirs = transformers_sam(pixel_values=pixels, input_boxes=boxes[None], multimask_output=False)
    assert logits.std() > 0.01
    torch.testing.assert_close(logits[None], theirs.pred_masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quality[None], theirs.iou_scores, atol=1e-4, rtol=1e-4)


def test_weights_that_disagree_with_themselves(transformers_sam, tmp_path):
    weights = {name: tensor.contiguous().clone() for name, tensor in transformers_sam.state_dict().items()}
    weights["prompt_encoder.shared_embedding.positional_embedding"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"holds prompt_encoder.pe_layer\S+ twice with different values"):
        load_sam(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("width", "depth", "heads", "global_layers"),
    [(768, 12, 12, (2, 5, 8, 11)), (1024, 24, 16, (5, 11, 17, 23)), (1280, 32, 16, (7, 15, 23, 31))],
)
def test_the_names_and_shapes_of_the_published_repositories_fit(width, depth, heads, global_layers):
    transformers = pytest.importorskip("transformers")
    vision = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "global_attn_indexes": list(global_layers),
    }
    with torch.device("meta"):
        theirs = transformers.SamModel(transformers.SamConfig(vision_config=vision)).state_dict()
        ours = sam_module._BUILDERS[width]().state_dict()
    names = [next(iter(sam_module._segment_anything_names({name: torch.zeros(1), **MARK}, Path()))) for name in theirs]
    converted = dict(zip(names, (tensor.shape for tensor in theirs.values()), strict=True))
    assert converted == {name: tensor.shape for name, tensor in ours.items()}


MARK = {"vision_encoder.pos_embed": torch.zeros(1)}


# --- the real sizes


@pytest.mark.parametrize(
    ("build", "parameters"),
    [(build_sam_vit_b, 93_735_472), (build_sam_vit_l, 312_342_832), (build_sam_vit_h, 641_090_608)],
)
def test_the_real_sizes_are_told_apart(monkeypatch, build, parameters):
    """Names and shapes only, without memory behind them: a photo through the real ViT-B takes too long for a test."""
    with torch.device("meta"):
        weights = build().state_dict()
    monkeypatch.setattr(sam_module, "load_file", lambda path: weights)
    sam = load_sam(Path("sam.safetensors"))
    assert sum(parameter.numel() for parameter in sam.parameters()) == parameters
    assert sam.image_encoder.img_size == 1024
    assert sam.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert sam.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


def spy(function, seen):
    """The function, which also notes what it was called with."""

    def wrapper(*args, **kwargs):
        seen.append((args, kwargs))
        return function(*args, **kwargs)

    return wrapper


def noting_dtype(function, types, name):
    """The function, which also notes the type of its result."""

    def wrapper(*args):
        result = function(*args)
        types[name] = result.dtype
        return result

    return wrapper


def refuse(*args, **kwargs):
    raise AssertionError("the Hub was asked")


def throw(error, *args, **kwargs):
    raise error
