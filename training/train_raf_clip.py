"""Region-aware contrastive fine-tuning of any open_clip model (RaF-CLIP).

Crops against category texts, masked crops against attribute texts (PAPER: eq. 1-5), and optionally the same decision
over the whole vocabulary. A locked text tower is run once; a trainable one is run on each step's texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.models.encoder import CONFIG_NAME, WEIGHTS_NAME, Encoder, build_encoder
from fashion_retrieval.taxonomy import Taxonomy
from training.data.crops import augment, load_crops
from training.data.deepfashion import prepared_samples
from training.data.deepfashion_files import annotation_folder
from training.data.garments import read_garments
from training.data.manifest import Sample, extra_samples, labelled_samples, read_held_out, read_synonyms
from training.data.texts import TextBank, Vocabulary, encode_samples
from training.loop import Optimisation, optimise, read_settings
from training.losses import Targets, attribute_loss, category_loss, raf_clip_loss, vocabulary_loss, wrong_pairs

CONFIGS = Path(__file__).parent / "configs"
HELD_OUT, SYNONYMS = CONFIGS / "held_out.toml", CONFIGS / "synonyms.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    init: list[str]
    output: str
    taxonomy: str
    targets: Targets
    alpha: float
    optimisation: Optimisation
    pseudo_labels: str = ""
    """Folder of `training.pseudo_label`."""
    vocabulary_weight: float = 0.0
    reworded: float = 0.0
    smoothing: float = 0.0
    balance: float = 0.0
    lock_text: bool = False
    freeze: list[str] = field(default_factory=list)
    lr_scales: dict[str, float] = field(default_factory=dict)
    cache_size: list[int] = field(default_factory=lambda: [256, 256])
    size_schedule: list[list[int]] = field(default_factory=lambda: [[0, 224, 224]])
    zoom: list[float] = field(default_factory=lambda: [0.78, 1.06])
    erased: float = 0.0
    whole_garments: int = 0
    masked_garments: int = 0
    extra_garments: int = 0
    compile: bool = False


def load_encoder(*folders: Path, image_size: Sequence[int] = ()) -> Encoder:
    """An open_clip folder with its weights, strictly.

    Args:
        folders: Encoders trained from one another; the mean of their weights is taken (Wortsman et al., 2022).
        image_size: (h, w), another size of input for a CNN tower.
    """
    config = json.loads((folders[0] / CONFIG_NAME).read_text(encoding="utf-8"))
    if image_size:
        config["model_cfg"]["vision_cfg"]["image_size"] = list(image_size)
        config["preprocess_cfg"]["size"] = list(image_size)
    encoder = build_encoder(config, folders[0])
    states = [load_file(folder / WEIGHTS_NAME) for folder in folders]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    encoder.clip.load_state_dict(mean)
    return encoder


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write an open_clip folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).write_text(json.dumps(encoder.config, indent=2) + "\n", encoding="utf-8")
    save_file({k: v.contiguous() for k, v in encoder.clip.state_dict().items()}, folder / WEIGHTS_NAME)


def prepare_trainable(encoder: Encoder, settings: Settings) -> None:
    """Freeze what the settings name; batch norm keeps its running statistics, since crops come in small batches."""
    shared = ("visual.", "logit_scale", "logit_bias")
    for name, parameter in encoder.clip.named_parameters():
        locked = settings.lock_text and not name.startswith(shared)
        parameter.requires_grad_(not locked and not name.startswith(tuple(settings.freeze)))
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices drawn by weight, without repeats within a step."""
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.multinomial(weights, count, generator=generator)


def read_garments_of(root: Path, settings: Settings) -> tuple[list[Sample], list[Sample]]:
    """Labelled garments and other photos: of DeepFashion (its train and val, as the paper) or of the open data pack."""
    if annotation_folder(root) is not None:
        return prepared_samples(root, ["train", "val"], whole=not settings.masked_garments), []
    return labelled_samples(root, "train"), extra_samples(root, "train")


def train(settings: Settings) -> Encoder:
    """Run the recipe and return the encoder with its (averaged) weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    root = Path(settings.data)
    torch.manual_seed(settings.optimisation.seed)
    encoder = load_encoder(*map(Path, settings.init)).to(device)
    prepare_trainable(encoder, settings)

    held_out = list(read_held_out(HELD_OUT))
    labelled, extra = read_garments_of(root, settings)
    whole = [s for s in labelled if s.mask is None]
    masked = [s for s in labelled if s.mask is not None]
    if settings.pseudo_labels:
        found = {(s.source, s.id, s.box): s for s in read_garments(Path(settings.pseudo_labels))}
        extra = [found.pop((s.source, s.id, s.box), s) for s in extra]
        masked += found.values()
    synonyms = read_synonyms(SYNONYMS, held_out) if settings.reworded else {}
    vocabulary = Vocabulary(Taxonomy.load(settings.taxonomy), synonyms)
    rows = encode_samples([*whole, *masked, *extra], vocabulary, held_out, settings.balance)
    bank = TextBank(encoder, vocabulary.texts, locked=settings.lock_text)
    size = settings.cache_size[0], settings.cache_size[1]
    crops = torch.cat(
        [
            load_crops(whole, size, masked=False, label="photos"),
            load_crops(masked, size, masked=False, label="crops"),
            load_crops(extra, size, masked=False, label="extra photos"),
            load_crops(masked, size, masked=True, label="masked crops"),
        ]
    )
    first_masked, first_extra = len(whole), len(whole) + len(masked)
    first_masked_crop = first_extra + len(extra)
    visual = torch.compile(encoder.clip.visual, dynamic=False) if settings.compile else encoder.clip.visual
    mean = torch.tensor(encoder.preprocess_config.mean, device=device).view(3, 1, 1)
    std = torch.tensor(encoder.preprocess_config.std, device=device).view(3, 1, 1)

    def loss_fn(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        image_size = next((h, w) for start, h, w in reversed(settings.size_schedule) if step >= start)
        garments = torch.cat(
            [
                draw(rows.weights[:first_masked], settings.whole_garments, generator),
                first_masked + draw(rows.weights[first_masked:first_extra], settings.masked_garments, generator),
                first_extra + draw(rows.weights[first_extra:], settings.extra_garments, generator),
            ]
        )
        in_street = (garments >= first_masked) & (garments < first_extra)
        pictures = torch.cat([garments, first_masked_crop + garments[in_street] - first_masked])
        zoom = settings.zoom[0], settings.zoom[1]
        pixels = augment(crops[pictures], image_size, generator, zoom=zoom, erased=settings.erased).to(device)
        features = functional.normalize(
            visual(((pixels - mean) / std).contiguous(memory_format=torch.channels_last)).float(), dim=-1
        )
        crop_features = features[: len(garments)]
        masked_features = crop_features.clone()
        masked_features[in_street.to(device)] = features[len(garments) :]

        scale = encoder.clip.logit_scale.clamp(max=4.6052).exp()  # at most 100, as CLIP
        category_ids, attribute_ids = rows.category_text[garments], rows.attribute_texts[garments]
        wrong = wrong_pairs(category_ids, settings.targets).to(device)
        l_c = category_loss(crop_features, bank.embed(category_ids), scale, wrong)
        l_a = attribute_loss(
            masked_features, bank.embed(attribute_ids.clamp(min=0)), scale, attribute_ids, settings.targets
        )
        loss = raf_clip_loss(l_c, l_a, settings.alpha)
        figures = {"L_c": l_c.item(), "L_a": l_a.item(), "scale": scale.item()}
        if settings.vocabulary_weight:
            terms = {}
            for name, image, (ids, target) in (
                ("category", crop_features, rows.categories(garments, generator)),
                ("colour", crop_features, rows.colours(garments)),
                *(
                    (g, masked_features, rows.attributes(garments, g, generator, settings.reworded))
                    for g in vocabulary.groups
                ),
            ):
                terms[name] = vocabulary_loss(image, bank.embed(ids), scale, target.to(device), settings.smoothing)
            attribute_terms = [terms[g] for g in vocabulary.groups]
            l_v = (1 - settings.alpha) * (terms["category"] + terms["colour"]) / 2
            l_v = l_v + settings.alpha * torch.stack(attribute_terms).mean()
            loss = loss + settings.vocabulary_weight * l_v
            figures |= {f"V_{name}": term.item() for name, term in terms.items()}
        return loss, figures

    modules = nn.ModuleDict({"clip": encoder.clip})
    optimise(modules, loss_fn, settings.optimisation, Path(settings.output), lr_scales=settings.lr_scales)
    return encoder.eval()


def main(config: Path) -> None:
    """Train by a TOML file; the same command goes on after an interruption."""
    settings = read_settings(config, Settings)
    save_encoder(train(settings), Path(settings.output))
    typer.echo(f"encoder written to {settings.output}")


if __name__ == "__main__":
    typer.run(main)
