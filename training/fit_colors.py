"""Fit the color naming on the labeled garments of the open data pack, and measure it.

    python -m training.fit_colors --data ../shared/data

Every labeled garment is a bag of pixels. The network names each pixel; the mean over the bag should be the garment's
color, with a part for its second color. Products without a label add their metadata's base color at a lower weight.
`--folds 4` cross-validates on `train` instead of writing the weights.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fashion_retrieval.images.load import load_image
from fashion_retrieval.inference.colors import ColorModel, dominant_colors, illuminant, sample, to_lab
from fashion_retrieval.taxonomy import Taxonomy
from training.data.io import read_label_image
from training.data.manifest import COLORS, LABELS, read_lines
from training.data.regions import Mask, studio_mask, subject_mask
from training.engine.errors import one_line_errors

ASSET = Path(__file__).parents[1] / "src/fashion_retrieval/assets/colors.json"
SKIN_INDEX = 41
BASE_COLORS, BASE_KINDS = LABELS["base_colors"], LABELS["base_kinds"]
"""By base color, and by the sub-category of the products whose base colors are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hyperparameters of `fit`, chosen by cross-validation on `train`."""

    hidden: int = 48
    epochs: int = 40
    lr: float = 1e-2
    weight_decay: float = 1e-3
    smoothing: float = 0.06
    second_share: float = 0.25
    extra_weight: float = 0.3
    light_jitter: float = 2.0
    pixels: int = 96
    batch: int = 64
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bags:
    """Garments as bags of pixels."""

    pixels: Tensor  # (N, P, 3) float32 in CIELAB
    counts: Tensor  # (N, P) float32, 1 for pixels that count and 0 for skin
    around: Tensor  # (N, 6) float32, the photo's illuminant
    target: Tensor  # (N, colors) float32, probabilities
    weight: Tensor  # (N,) float32, sampling weights
    fold: NDArray[np.int64]  # (N,) a number that assigns the garment to a fold


def garment_mask(row: dict[str, Any], rgb: NDArray[np.uint8], path: Path, kind: str | None) -> Mask:
    """The garment of a labeled row: its pixel mask (street), or an estimate."""
    if row["source"] == "street":
        mask: Mask = read_label_image(path.with_suffix(".mask.png")) == row["label_index"]
        return mask
    return product_mask(rgb, kind) if row["source"] == "products" else subject_mask(rgb)


def product_mask(rgb: NDArray[np.uint8], kind: str | None) -> Mask:
    """The part of a studio photo where a garment of this kind is, on a person (with a face) or alone."""
    subject = studio_mask(rgb)
    rows = np.flatnonzero(subject.any(axis=1))
    top, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
    head = subject[top : top + height // 4]
    face = _skin_hue(rgb[top : top + height // 4])[head].mean() > 0.12 if head.any() else False
    if kind in ("trousers", "shorts", "skirt", "legwear"):
        first, last = 0.18, 0.85
    elif kind not in ("upper", "outerwear", "dress") or not face:
        first, last = 0.0, 1.0
    else:
        first, last = (0.22, 0.80) if kind == "dress" else (0.24, 0.68)
    band = np.zeros_like(subject)
    band[top + int(first * height) : top + int(last * height)] = True
    return subject & band if (subject & band).any() else subject


def _skin_hue(rgb: NDArray[np.uint8]) -> Mask:
    lab = to_lab(rgb)
    chroma, hue = np.hypot(lab[..., 1], lab[..., 2]), np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))
    skin: Mask = (lab[..., 0] > 25) & (hue > 22) & (hue < 75) & (chroma > 12) & (chroma < 48)
    return skin


def labeled(data: Path, split: str) -> list[dict[str, Any]]:
    """Rows of attributes.jsonl with a color; street rows get their label index."""
    regions = {row["id"]: row["regions"] for row in read_lines(data / "street.jsonl") if "regions" in row}
    rows = [row for row in read_lines(data / "attributes.jsonl", split) if row.get("colour") in COLORS]
    for row in rows:
        if row["source"] == "street":
            row["label_index"] = regions[row["id"]][row["region"]]["label_index"]
    return rows


def with_metadata(data: Path, known: set[str]) -> list[dict[str, Any]]:
    """Unlabeled train products as rows with the base color of their metadata."""
    return [
        {"source": "products", "id": row["id"], "split": "train", "extra": True}
        | {"kind": BASE_KINDS[row["sub_category"]], "colour": BASE_COLORS[row["base_colour"]]}
        for row in read_lines(data / "products.jsonl", "train")
        if row["id"] not in known and row["base_colour"] in BASE_COLORS and row["sub_category"] in BASE_KINDS
    ]


def load(data: Path, row: dict[str, Any], kinds: dict[str, str | None]) -> tuple[NDArray[np.uint8], Mask]:
    """Photo and garment mask of a row."""
    path = data / row["source"] / row["split"] / f"{row['id']}.jpg"
    rgb = np.asarray(load_image(path))
    return rgb, garment_mask(row, rgb, path, row.get("kind") or kinds.get(row.get("category", "")))


def read_bags(data: Path, cache: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], list[dict[str, Any]]]:
    """Pixels (N, 512, 3) and illuminants (N, 6) in CIELAB of all train rows, cached between runs."""
    rows = labeled(data, "train")
    rows += with_metadata(data, {row["id"] for row in rows if row["source"] == "products"})
    if cache.exists():
        with np.load(cache) as stored:
            if len(stored["around"]) == len(rows):
                return stored["pixels"].astype(np.float32), stored["around"], rows
    kinds = category_kinds()
    pixels, around = np.empty((len(rows), 512, 3), dtype=np.float16), np.empty((len(rows), 6), dtype=np.float32)
    for index, row in enumerate(rows):
        rgb, mask = load(data, row, kinds)
        chosen, around[index] = sample(rgb, mask), illuminant(rgb)
        rng = np.random.default_rng(index)
        pixels[index] = to_lab(chosen)[rng.choice(len(chosen), 512, replace=len(chosen) < 512)]
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, pixels=pixels, around=around)
    return pixels.astype(np.float32), around, rows


def category_kinds() -> dict[str, str | None]:
    """Kind of region by category."""
    return {value.name: value.kind for value in Taxonomy.load("default").category.values}


def make_bags(data: Path, cache: Path, settings: Settings) -> Bags:
    """All train rows as tensors; skin doesn't count where it is a minor part."""
    pixels, around, rows = read_bags(data, cache)
    target = np.full((len(rows), len(COLORS)), settings.smoothing / len(COLORS), dtype=np.float32)
    for index, row in enumerate(rows):
        first, second = COLORS.index(row["colour"]), row.get("second_colour")
        fraction = settings.second_share if second in COLORS else 0.0
        target[index, first] += (1 - settings.smoothing) * (1 - fraction)
        if second in COLORS:
            target[index, COLORS.index(second)] += (1 - settings.smoothing) * fraction
    skin = fit_skin(data)
    offset = pixels - skin[0]
    is_skin = np.einsum("npi,ij,npj->np", offset, skin[1], offset) < 1
    counts = ~is_skin | (is_skin.mean(axis=1, keepdims=True) > 0.35)
    weight = np.array([settings.extra_weight if row.get("extra") else 1.0 for row in rows], dtype=np.float32)
    fold = np.array([zlib.crc32(row["id"].encode()) for row in rows], dtype=np.int64)
    arrays = (pixels, counts.astype(np.float32), around, target, weight)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return Bags(tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], fold)


def fit_skin(data: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and precision in CIELAB of the skin pixels of street masks, scaled so that 60% of them lie within 1."""
    drawn = []
    for row in read_lines(data / "street.jsonl", "train")[::4]:
        path = data / "street" / "train" / f"{row['id']}.jpg"
        if "regions" in row:
            skin = read_label_image(path.with_suffix(".mask.png")) == SKIN_INDEX
            if skin.sum() > 100:
                drawn.append(to_lab(np.asarray(load_image(path))[skin][::20]))
    lab = np.concatenate(drawn)
    mean = np.median(lab, axis=0)
    precision = np.linalg.inv(np.cov((lab - mean).T)) / 2.9  # 60% quantile of chi-squared with 3 degrees of freedom
    return mean.astype(np.float32), precision.astype(np.float32)


class Namer(nn.Module):
    """`ColorModel.names` in torch."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.from_pixel = nn.Linear(7, hidden)
        self.from_context = nn.Linear(12, hidden, bias=False)
        self.to_name = nn.Linear(hidden, len(COLORS))

    def forward(self, lab: Tensor, counts: Tensor, around: Tensor) -> Tensor:
        """(b, p, 3), (b, p), (b, 6) -> (b, colors), the log of each color's fraction of the pixels."""
        light, a, b = lab.unbind(-1)
        chroma = torch.hypot(a, b)
        soft = chroma + 6
        columns = (light / 50 - 1, a / 40, b / 40, chroma / 40, a / soft, b / soft, chroma / (light + 10))
        weights = (counts / counts.sum(1, keepdim=True).clamp(min=1))[..., None]
        mean = (lab * weights).sum(1)
        deviation = ((lab - mean[:, None]).square() * weights).sum(1).clamp(min=1e-4).sqrt()
        context = torch.cat([mean / 50, deviation / 25, around / 50], dim=1)
        hidden = functional.relu(self.from_pixel(torch.stack(columns, -1)) + self.from_context(context)[:, None])
        names = self.to_name(hidden).softmax(-1)
        fractions: Tensor = (names * weights).sum(1)
        return (fractions + 3e-3).log()


def fit(bags: Bags, rows: NDArray[np.int64], settings: Settings) -> Namer:
    """Fit on these rows; returns the moving average of the weights."""
    torch.manual_seed(settings.seed)
    rng = torch.Generator().manual_seed(settings.seed)
    namer = Namer(settings.hidden)
    average = AveragedModel(namer, multi_avg_fn=get_ema_multi_avg_fn(0.998))  # type: ignore[no-untyped-call]
    steps = settings.epochs * len(rows) // settings.batch
    optimizer = torch.optim.AdamW(namer.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps, pct_start=0.15)
    index, weight = torch.from_numpy(rows), bags.weight[rows].double()
    for _ in range(steps):
        chosen = index[torch.multinomial(weight, settings.batch, replacement=True, generator=rng)]
        columns = torch.randint(bags.pixels.shape[1], (settings.pixels,), generator=rng)
        light = torch.randn(settings.batch, 1, 3, generator=rng) * settings.light_jitter
        shifted = bags.pixels[chosen][:, columns] + light
        around = bags.around[chosen] + light[:, 0].repeat(1, 2)
        names = namer(shifted, bags.counts[chosen][:, columns], around)
        loss = -(names * bags.target[chosen]).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(namer)
    return average.module  # type: ignore[return-value]


def to_model(namer: Namer, skin: tuple[NDArray[np.float32], NDArray[np.float32]]) -> ColorModel:
    """The network as the package ships it, in NumPy."""
    weights = {name: value.detach().numpy() for name, value in namer.state_dict().items()}
    return ColorModel(
        palette=COLORS,
        from_pixel=weights["from_pixel.weight"].T,
        from_context=weights["from_context.weight"].T,
        hidden_bias=weights["from_pixel.bias"],
        to_name=weights["to_name.weight"].T,
        name_bias=weights["to_name.bias"],
        skin_mean=skin[0],
        skin_precision=skin[1],
    )


@one_line_errors()
def main(data: Path = Path("../shared/data"), cache: Path = Path("runs/colors/pixels.npz"), folds: int = 0) -> None:
    """Fit the naming on `train`, write it and measure it on `val`; or cross-validate on `train`."""
    settings = Settings()
    bags = make_bags(data, cache, settings)
    if folds:
        truth, guess = bags.target.argmax(1), torch.empty(len(bags.target), dtype=torch.int64)
        for fold in range(folds):
            held = bags.fold % folds == fold
            namer = fit(bags, np.flatnonzero(~held), settings)
            with torch.no_grad():
                guess[held] = namer(bags.pixels[held], bags.counts[held], bags.around[held]).argmax(1)
        own = bags.weight == 1
        typer.echo(f"cross-validated accuracy on train: {float((guess == truth)[own].float().mean()):.4f}")
        return
    namer = fit(bags, np.arange(len(bags.target)), settings)
    ASSET.write_text(to_model(namer, fit_skin(data)).to_json(), encoding="utf-8")
    kinds, hits = category_kinds(), Counter[tuple[str, bool]]()
    for row in labeled(data, "val"):
        colors = dominant_colors(*load(data, row, kinds))
        hits[row["source"], bool(colors) and colors[0].name == row["colour"]] += 1
    for source in ("products", "clothing", "street"):
        right, wrong = hits[source, True], hits[source, False]
        typer.echo(f"{source:9} {right / (right + wrong):.4f} of {right + wrong}")
    right = sum(count for (_, hit), count in hits.items() if hit)
    typer.echo(f"all       {right / hits.total():.4f} of {hits.total()}")


if __name__ == "__main__":
    typer.run(main)
