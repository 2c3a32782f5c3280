"""SAM's weights as they are published: transformers' names and the three real sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, build_sam_vit_b, build_sam_vit_h, build_sam_vit_l

from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models import sam as sam_module
from fashion_retrieval.models.sam import load_sam
from tests.support.tiny_sam import BOXES, SIDE, WIDTH, garments_photo, tiny_sam

MARK = {"vision_encoder.pos_embed": torch.zeros(1)}


@pytest.fixture(autouse=True)
def tiny_is_an_architecture(monkeypatch):
    monkeypatch.setitem(sam_module._BUILDERS, WIDTH, tiny_sam)


@pytest.fixture(scope="module")
def photo():
    return garments_photo()


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


def test_load_sam_refuses_weights_that_disagree_with_themselves(transformers_sam, tmp_path):
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


@pytest.mark.parametrize(
    ("build", "parameters"),
    [(build_sam_vit_b, 93_735_472), (build_sam_vit_l, 312_342_832), (build_sam_vit_h, 641_090_608)],
)
def test_the_real_sizes_are_told_apart(monkeypatch, build, parameters):
    """Names and shapes only, without memory behind them: a photo through the real ViT-B takes too long for a test."""
    with torch.device("meta"):
        weights = build().state_dict()
    monkeypatch.setattr(sam_module, "read_weights", lambda path: weights)
    sam = load_sam(Path("sam.safetensors"))
    assert sum(parameter.numel() for parameter in sam.parameters()) == parameters
    assert sam.image_encoder.img_size == 1024
    assert sam.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert sam.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
