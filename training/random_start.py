"""Write an open_clip architecture with random weights, to start a recipe from if its pretrained weights can't be had.

python -m training.random_start ViT-B-32 runs/random_vit_b_32
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import open_clip
import torch
import typer
from open_clip.transform import PreprocessCfg

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.open_clip_encoder import build_encoder
from training.engine.errors import one_line_errors
from training.engine.weights import save_encoder


def random_encoder(architecture: str, seed: int = 0) -> Encoder:
    """An open_clip architecture by name, initialized from a seed."""
    model = open_clip.get_model_config(architecture)
    if model is None:
        known = ", ".join(open_clip.list_models())
        raise ConfigError(f"expected one of open_clip's architectures, got {architecture!r}; known are {known}")
    size = model["vision_cfg"].get("image_size", 224)
    preprocess = {**asdict(PreprocessCfg()), "size": size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder({"model_cfg": model, "preprocess_cfg": preprocess}, Path())


def main(
    architecture: Annotated[str, typer.Argument(help="Name of open_clip's, such as ViT-B-32.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    seed: int = 0,
) -> None:
    """Write the folder."""
    with one_line_errors():
        save_encoder(random_encoder(architecture, seed), output)
        typer.echo(f"{architecture} with random weights written to {output}")


if __name__ == "__main__":
    typer.run(main)
