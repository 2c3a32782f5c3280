"""What the benchmarks run on: JPEG files and one set of ViT-B/32 weights in both layouts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import InputError

PACK = Path("../shared/data")
FOLDERS = ("products", "clothing", "street")
HF, OPEN_CLIP = "transformers", "open_clip"


def photos(count: int, cache: Path, *, seed: int = 0) -> tuple[list[Path], str]:
    """`count` JPEG files and their source: the data pack's folders in turn or, without the pack, drawn photos."""
    if all((PACK / folder).is_dir() for folder in FOLDERS):
        each = [sorted((PACK / folder).rglob("*.jpg")) for folder in FOLDERS]
        rng = random.Random(seed)
        chosen = [rng.sample(files, min(len(files), -(-count // len(FOLDERS)))) for files in each]
        files = [file for row in zip(*chosen, strict=False) for file in row][:count]
        if len(files) < count:
            raise InputError(f"the data pack holds too few photos for {count}; ask for at most {len(files)}")
        return files, "data pack"
    folder = cache / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    return [_drawn(folder / f"{number:05}.jpg", number) for number in range(count)], "drawn"


def _drawn(path: Path, number: int) -> Path:
    """A photo-like JPEG: smooth shapes with noise, 300 x 400."""
    if not path.exists():
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((300, 400), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)
    return path


def vit_b_32(cache: Path) -> dict[str, Path]:
    """The same random ViT-B/32 weights (the architecture of LAION's, GELU) as transformers and as open_clip folders."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folders = {name: cache / f"vit_b_32_{name}" for name in (HF, OPEN_CLIP)}
    if not folders[OPEN_CLIP].is_dir():
        torch.manual_seed(0)
        config = CLIPConfig(text_config={"hidden_act": "gelu"}, vision_config={"hidden_act": "gelu"})
        CLIPModel(config).save_pretrained(folders[HF])
        CLIPImageProcessor().save_pretrained(folders[HF])
        FashionModel.from_pretrained(folders[HF], device="cpu").save_pretrained(folders[OPEN_CLIP])
    return folders
