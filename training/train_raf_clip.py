"""Region-aware contrastive fine-tuning of any open_clip model (RaF-CLIP).

Crops are contrasted with category texts, masked crops with attribute texts (PAPER: eq. 1-5), and optionally both with
the whole vocabulary. A locked text tower runs once; a trainable one runs on each step's texts.

python -m training.train_raf_clip training/configs/raf_clip_vit_b_32.toml
torchrun --nproc-per-node 2 -m training.train_raf_clip training/configs/raf_clip_vit_b_32.toml
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import typer
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.taxonomy import Taxonomy
from training.data.batches import Batches, Pool
from training.data.crops import load_crops
from training.data.cuts import fold_of, with_masks
from training.data.deepfashion import prepared_samples
from training.data.deepfashion_files import annotation_folder
from training.data.garments import read_garments
from training.data.manifest import Sample, extra_samples, labeled_samples, read_held_out, read_synonyms
from training.data.texts import LabelTable, TextEmbeddingCache, Vocabulary, encode_samples
from training.engine import loop
from training.engine.distributed import DistributedEnv, distributed_env, single_process
from training.engine.errors import one_line_errors
from training.engine.optimizer import layer_scales, lr_scale
from training.engine.settings import check_settings, read_settings
from training.engine.weights import interpolated, load_encoder, save_encoder
from training.recipes.raf_clip_objective import Objective
from training.recipes.raf_clip_settings import Settings

CONFIGS = Path(__file__).parent / "configs"
HELD_OUT, SYNONYMS = CONFIGS / "held_out.toml", CONFIGS / "synonyms.toml"


def train(settings: Settings, env: DistributedEnv | None = None) -> Encoder:
    """Run the recipe and return the encoder with its (averaged, interpolated) weights."""
    env = env or single_process()
    torch.manual_seed(settings.optimization.seed)
    encoder = load_encoder(*map(Path, settings.init)).to(env.device)
    check_recipe(settings, encoder, env)
    start = {name: value.to("cpu", copy=True) for name, value in encoder.clip.state_dict().items()}
    prepare_trainable(encoder, settings)

    pools = read_pools(Path(settings.data), settings)
    labels = read_labels([sample for pool in pools for sample in pool.samples], settings)
    batches = Batches(pools, labels.weights if settings.sampling == "weighted" else None, settings.optimization.seed)
    size = settings.cache_size[0], settings.cache_size[1]
    cache = Path(settings.cache or Path(settings.output) / "crops")
    crops = load_crops(batches.crops, size, cache, env=env)
    texts = TextEmbeddingCache(
        encoder, labels.vocabulary.texts, locked=settings.lock_text, env=env, micro_batch=settings.micro_batch
    )
    objective = Objective(encoder, labels, texts, crops, settings, env, batches.samples)

    def loss_fn(rng: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        return objective(batches.draw(step, rng), step, rng)

    loop.train(
        nn.ModuleDict({"clip": encoder.clip}),
        loss_fn,
        settings.optimization.in_steps(batches.steps_per_epoch),
        Path(settings.output),
        lr_scales=learning_rates(encoder, settings),
        env=env,
        tracking=settings.tracking,
        settings=asdict(settings),
    )
    if settings.interpolate < 1:
        trained = {name: value.cpu() for name, value in encoder.clip.state_dict().items()}
        encoder.clip.load_state_dict(interpolated(start, trained, settings.interpolate))
    return encoder.eval()


def check_recipe(settings: Settings, encoder: Encoder, env: DistributedEnv) -> None:
    """Refuse settings that don't fit the encoder or the number of processes, before anything is read."""
    check_settings(settings, "the recipe")
    faults = []
    names = [name for name, _ in encoder.clip.named_parameters()]
    faults += [f"freeze: no parameter begins with {start}" for start in settings.freeze
               if not any(name.startswith(start) for name in names)]  # fmt: skip
    faults += [f"lr_scales: no parameter begins with {start}" for start in settings.lr_scales
               if not any(f"clip.{name}".startswith(start) for name in names)]  # fmt: skip
    sizes = {(height, width) for _, height, width in settings.size_schedule}
    if isinstance(encoder.clip.visual, VisionTransformer) and sizes != {encoder.image_size}:
        height, width = encoder.image_size
        faults.append(f"size_schedule must be {height} by {width} pixels throughout, the size of this transformer")
    if settings.crops_per_step % env.world_size:
        faults.append(f"{settings.crops_per_step} crops a step can't be shared evenly by {env.world_size} processes")
    if faults:
        raise ConfigError("; ".join(faults))


def prepare_trainable(encoder: Encoder, settings: Settings) -> None:
    """Freeze what the settings name; batch norm keeps its running statistics, since crops come in small batches."""
    shared = ("visual.", "logit_scale", "logit_bias")
    for name, parameter in encoder.clip.named_parameters():
        locked = settings.lock_text and not name.startswith(shared)
        parameter.requires_grad_(not locked and not name.startswith(tuple(settings.freeze)))
    if settings.gradient_checkpointing:
        open_clips: Any = encoder.clip  # of the light towers none is trained
        open_clips.set_grad_checkpointing(True)
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def read_garments_of(root: Path, settings: Settings) -> tuple[list[Sample], list[Sample]]:
    """Labeled garments, and other photos, of DeepFashion (train and val, as in the paper) or the open data pack."""
    if annotation_folder(root) is not None:
        return prepared_samples(root, ["train", "val"], whole=not settings.masked_garments), []
    return labeled_samples(root, "train"), extra_samples(root, "train")


def read_pools(root: Path, settings: Settings) -> list[Pool]:
    """Garments without a mask, with one, and other photos with their pseudo labels; unused pools are left out."""
    labeled, extra = (
        [s for s in part if fold_of(s.photo) != settings.fold] for part in read_garments_of(root, settings)
    )
    whole = [s for s in labeled if s.mask is None]
    masked = [s for s in labeled if s.mask is not None]
    if settings.cuts:
        masked += with_masks(root, [*whole, *(s for s in extra if s.category)], "train")
    if settings.pseudo_labels:
        found = {(s.source, s.id, s.box): s for s in read_garments(Path(settings.pseudo_labels))}
        extra = [found.pop((s.source, s.id, s.box), s) for s in extra]
        masked += found.values()
    pools = [
        Pool(whole, settings.whole_garments, masked=False),
        Pool(masked, settings.masked_garments, masked=True),
        Pool(extra, settings.extra_garments, masked=False),
    ]
    return [pool for pool in pools if pool.per_step]


def read_labels(samples: list[Sample], settings: Settings) -> LabelTable:
    """The labels of the garments, as ids of texts."""
    held_out = list(read_held_out(HELD_OUT))
    synonyms = read_synonyms(SYNONYMS, held_out) if settings.reworded else {}
    vocabulary = Vocabulary(Taxonomy.load(settings.taxonomy), synonyms)
    return encode_samples(samples, vocabulary, held_out, settings.balance)


def learning_rates(encoder: Encoder, settings: Settings) -> dict[str, float]:
    """Factor on the learning rate of each parameter: `lr_scales` times that of `layer_decay`."""
    factors = layer_scales([name for name, _ in encoder.clip.named_parameters()], settings.layer_decay)
    return {f"clip.{name}": factor * lr_scale(f"clip.{name}", settings.lr_scales) for name, factor in factors.items()}


def main(config: Path) -> None:
    """Train by a TOML file; the same command goes on after an interruption."""
    with distributed_env() as env, one_line_errors():
        settings = read_settings(config, Settings)
        encoder = train(settings, env)
        if env.is_main_process:
            save_encoder(encoder, Path(settings.output))
            typer.echo(f"encoder written to {settings.output}")


if __name__ == "__main__":
    typer.run(main)
