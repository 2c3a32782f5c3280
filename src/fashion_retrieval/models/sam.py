"""Segment Anything prompted with boxes: the paper's way to find the pixels of a garment."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamPredictor, build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam
from torch import Tensor

from fashion_retrieval._utils.deprecation import accept_old_keywords, renamed_attribute
from fashion_retrieval._utils.device import inference_context, resolve_device, resolve_dtype
from fashion_retrieval._utils.files import asset, sha256
from fashion_retrieval._utils.hub_errors import explain_download, translate_errors
from fashion_retrieval.errors import InputError, ModelNotFoundError, WeightsError
from fashion_retrieval.images.regions import box_mask, check_boxes, mask_box
from fashion_retrieval.models.weights import NoRandomWeights, fill, read_weights
from fashion_retrieval.results import Mask, Region, Segmenter

WEIGHTS_NAME = "model.safetensors"
OFFICIAL_SHA256 = {
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912": "sam_vit_b_01ec64.pth",
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622": "sam_vit_l_0b3195.pth",
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e": "sam_vit_h_4b8939.pth",
}

_BUILDERS: dict[int, Callable[[], Sam]] = {768: build_sam_vit_b, 1024: build_sam_vit_l, 1280: build_sam_vit_h}
_PATCH_EMBEDDING = "image_encoder.patch_embed.proj.weight"
_FROM_TRANSFORMERS = tuple((re.compile(pattern), name) for pattern, name in json.loads(asset("transformers/sam.json")))
"""What transformers calls parts of SAM's tensors, and what segment_anything does; applied one after another."""


class SegmentAnythingSegmenter:
    """Cuts out what lies in each box with SAM; a segmenter like any other for `FashionModel.recognize`.

    One image embedding per photo; all boxes of the photo are one batch of prompts.
    """

    proposer = renamed_attribute("proposer", "detector")

    @accept_old_keywords(proposer="detector")
    def __init__(
        self,
        sam: Sam,
        *,
        detector: Segmenter | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
    ) -> None:
        """Take a loaded SAM; `from_pretrained` loads one.

        Args:
            sam: A `segment_anything.modeling.Sam` with its weights.
            detector: A segmenter whose boxes prompt SAM when the caller gives none; its `kind` and `score` are kept.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            dtype: Of the image encoder; prompts and masks are always float32, or coordinates would be rounded.
        """
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.detector = detector
        self.sam = sam.requires_grad_(False).eval().to(self.device)

    @classmethod
    @accept_old_keywords(proposer="detector")
    def from_pretrained(
        cls,
        id_or_path: str | Path = "facebook/sam-vit-base",
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        detector: Segmenter | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
    ) -> SegmentAnythingSegmenter:
        """Load SAM ViT-B, ViT-L or ViT-H, told apart by the shapes of their tensors; strict.

        Args:
            id_or_path: A `.safetensors` file with the names of segment_anything or of transformers; an official
                `sam_vit_*.pth`, verified by its sha256 before it is read; a folder with `model.safetensors`; or a
                Hub repository with that file: "facebook/sam-vit-base", "-large" or "-huge".
            revision: Branch, tag or commit of the Hub repository.
            cache_dir: Instead of the Hub's default cache.
            local_files_only: Never go to the network.
            token: For private or gated repositories.
            detector: See the constructor.
            device: See the constructor.
            dtype: See the constructor.

        Raises:
            ModelNotFoundError: No such file, repository or revision, or it is not in the cache while offline.
            HubError: The Hub refused or did not answer.
            WeightsError: Truncated, altered, pickled, or not the weights of a SAM.
        """
        path = _local_path(id_or_path)
        if path is None:
            examples = "such as facebook/sam-vit-base"
            with translate_errors(
                partial(explain_download, repo_id=str(id_or_path), revision=revision, examples=examples)
            ):
                file = hf_hub_download(
                    str(id_or_path),
                    WEIGHTS_NAME,
                    revision=revision,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    token=token,
                )
            path = Path(file)
        return cls(load_sam(path), detector=detector, device=device, dtype=dtype)

    def segment(self, image: Image.Image, boxes: NDArray[np.float32] | None = None) -> list[Region]:
        """Find the mask of what is in each box.

        Args:
            image: RGB photo.
            boxes: (N, 4) xyxy in pixels of the photo, float32; cut at its edges. None asks the detector.

        Returns:
            One region per box, in order; its box is that of the mask. The score is the detector's, or SAM's own
            estimate of the mask's IoU where the boxes were given. Where SAM finds nothing, the detector's region is
            returned as it is, or the whole given box with score 0.

        Raises:
            InputError: Neither boxes nor a detector; boxes of a wrong shape, not finite or outside the photo.
        """
        image = image.convert("RGB")
        if boxes is not None:
            prompts = [
                Region(tuple(box.tolist()), box_mask(box, image.height, image.width), 0.0)
                for box in check_boxes(boxes, image.width, image.height)
            ]
        elif self.detector is not None:
            prompts = self.detector.segment(image)
        else:
            raise InputError("Segment Anything needs boxes, got none; pass boxes=..., or build it with detector=...")
        if not prompts:
            return []
        masks, quality = self._predict(image, np.array([region.box for region in prompts], dtype=np.float32))
        scores = quality if boxes is not None else [region.score for region in prompts]
        return [
            Region(box=mask_box(mask), mask=mask, score=score, kind=prompt.kind) if mask.any() else prompt
            for prompt, mask, score in zip(prompts, masks, scores, strict=True)
        ]

    def _predict(self, image: Image.Image, boxes: NDArray[np.float32]) -> tuple[Mask, list[float]]:
        """(N, 4) xyxy pixels -> masks (N, H, W) bool and estimated IoU in [0, 1] of each."""
        predictor = SamPredictor(self.sam)
        size = (image.height, image.width)
        if min(predictor.transform.get_preprocess_shape(*size, predictor.transform.target_length)) < 1:
            raise InputError(f"photo of {image.width}x{image.height} is too narrow for SAM; crop its long side")
        with inference_context(self.device, self.dtype):
            predictor.set_image(np.asarray(image))
        with inference_context(self.device, torch.float32):
            predictor.features = predictor.features.float()
            prompts = torch.from_numpy(predictor.transform.apply_boxes(boxes, size)).float().to(self.device)
            masks, quality, _ = predictor.predict_torch(None, None, boxes=prompts, multimask_output=False)
        return masks[:, 0].cpu().numpy(), quality[:, 0].clamp(0, 1).tolist()


def load_sam(path: Path) -> Sam:
    """Build the SAM whose weights a `.safetensors` file or an official checkpoint holds, all and nothing else."""
    weights = _segment_anything_names(_read(path), path)
    width = weights[_PATCH_EMBEDDING].shape[0] if _PATCH_EMBEDDING in weights else None
    if width not in _BUILDERS:
        found = "no image encoder" if width is None else f"an image encoder {width} wide"
        raise WeightsError(f"{path.name}: expected SAM ViT-B, ViT-L or ViT-H, got {found}; use facebook/sam-vit-base")
    with NoRandomWeights():
        sam = _BUILDERS[width]()
    fill(sam, weights, path, expected="that of a SAM", remedy="use facebook/sam-vit-base")
    return sam


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_weights(path)
    if path.suffix != ".pth":
        expected = "a .safetensors file or an official sam_vit_*.pth"
        raise WeightsError(f"expected {expected}, got {path.name}; use facebook/sam-vit-base")
    digest = sha256(path)
    if digest not in OFFICIAL_SHA256:
        names = ", ".join(OFFICIAL_SHA256.values())
        raise WeightsError(
            f"{path.name} has sha256 {digest[:12]}…, which none of {names} has: it is incomplete, altered or other; "
            "download it again, or use a .safetensors file"
        )
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path.name} can't be read as plain tensors ({error}); download it again") from None


def _segment_anything_names(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Give tensors that carry the names of transformers' SamModel the names of segment_anything."""
    if not any(name.startswith("vision_encoder.") for name in weights):
        return dict(weights)
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        for pattern, replacement in _FROM_TRANSFORMERS:
            name = pattern.sub(replacement, name)
        if not torch.equal(renamed.setdefault(name, tensor), tensor):
            raise WeightsError(f"{path.name} holds {name} twice with different values; download it again")
    return renamed


def _local_path(id_or_path: str | Path) -> Path | None:
    """The weights file meant, or None for the name of a Hub repository."""
    path = Path(id_or_path).expanduser()
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if path.is_file():
        return path
    named_as_file = isinstance(id_or_path, Path) or path.suffix in {".safetensors", ".pth", ".pt", ".bin"}
    if named_as_file or path.is_absolute() or str(id_or_path).startswith((".", "~")):
        raise ModelNotFoundError(f"expected SAM weights at {path}, found no such file; use facebook/sam-vit-base")
    return None
