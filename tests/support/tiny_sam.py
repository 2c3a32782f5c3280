"""Segment Anything at a size that tests can run: the real modules, 256 px and two layers, with fixed random weights."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

WIDTH, SIDE = 32, 256
PHOTO_SIZE = (400, 300)
BOXES = np.array([[40, 30, 200, 180], [220.5, 60, 399, 290], [10, 200, 120, 299]], dtype=np.float32)
"""Boxes in `garments_photo`, (3, 4) xyxy in pixels."""


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


def garments_photo() -> Image.Image:
    """An RGB picture of `PHOTO_SIZE`, (width, height) in pixels: a blue and a red shape on a light background."""
    image = Image.new("RGB", PHOTO_SIZE, (230, 225, 215))
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 40, 190, 170), fill=(30, 60, 140))
    draw.ellipse((230, 70, 390, 280), fill=(170, 40, 50))
    return image
