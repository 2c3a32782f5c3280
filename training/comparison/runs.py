"""The runs of a comparison: composers trained by one recipe, each kept in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fashion_retrieval.config import VARIANTS, ComposerConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.composer import Composer
from training.comparison.asked import Asked, ask
from training.composers import COMPOSERS
from training.composers.base import Anchored
from training.engine.distributed import DistributedEnv
from training.engine.files import write_text
from training.engine.settings import from_mapping
from training.recipes.agcn_data import TripletDataset
from training.recipes.agcn_fit import fit
from training.recipes.agcn_settings import Settings

NAMES = (*VARIANTS, *COMPOSERS)
TEXT_TOKENS = 16
"""Length of the text for which a query's cost is counted."""
Initialization = Literal["sum", "text", "own"]


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the table: a composer, and what it starts from."""

    name: str
    start: Initialization | None
    """See `training.compare_composers`; None for AGCN and its ablations, which have no choice."""

    @property
    def key(self) -> str:
        """Name of its folder."""
        return self.name if self.start is None else f"{self.name}_{self.start}"

    def build(self, config: ComposerConfig) -> nn.Module:
        """The module, randomly initialized."""
        if self.start is None:
            return Composer(replace(config, variant=self.name))
        composer = COMPOSERS[self.name](config)
        if self.start == "own":
            return composer
        return Anchored(composer, config.embedding_dim, with_photo=self.start == "sum")


def init_or_resume(recipe: Settings, fingerprint: str) -> None:
    """Claim the output folder for this recipe, or go on in it; runs of another recipe or encoder are refused."""
    path = Path(recipe.output) / "recipe.json"
    elsewhere: dict[str, Any] = {"output": "", "cache": "", "variant": "agcn", "tracking": []}
    ours = {"encoder": fingerprint, **asdict(replace(recipe, **elsewhere))}
    if path.exists() and _completed(path, elsewhere) != ours:
        raise ConfigError(f"{path.parent} holds runs of another recipe or encoder; choose another output, or delete it")
    kept = {key: value for key, value in ours.items() if key not in elsewhere}
    write_text(path, json.dumps(kept, indent=2, sort_keys=True) + "\n")


def _completed(path: Path, elsewhere: Mapping[str, Any]) -> dict[str, Any] | None:
    """A stored recipe, completed with the defaults of newer settings; None if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        encoder = found.pop("encoder")
        return {"encoder": encoder, **asdict(from_mapping(found | elsewhere, Settings, str(path)))}
    except (ValueError, KeyError, AttributeError):
        return None


def composer_config(recipe: Settings, dataset: TripletDataset) -> ComposerConfig:
    """The configuration of composers on these features."""
    return ComposerConfig(
        embedding_dim=dataset.tokens.shape[-1], encoder=dataset.texts.encoder.fingerprint, **asdict(recipe.composer)
    )


def run(
    method: Method,
    seed: int,
    recipe: Settings,
    dataset: TripletDataset,
    asked: Asked,
    env: DistributedEnv,
) -> dict[str, Any]:
    """Train and measure one composer, or read the results of a finished run.

    One that was asked less, by an earlier release, is trained again.
    """
    folder = Path(recipe.output) / method.key / str(seed)
    done = folder / "run.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if found.get("wrong_photo", {}).keys() >= {one.protocol for one in asked.sets}:
            return found
    torch.manual_seed(seed)
    composer = method.build(composer_config(recipe, dataset)).to(env.device)
    size = sum(parameter.numel() for parameter in composer.parameters())
    training = {}
    if size:
        recipe = replace(recipe, optimization=replace(recipe.optimization, seed=seed))
        fit(composer, recipe, dataset, folder, env)
        training = _summary(folder / "log.jsonl")
    measured = {"seed": seed, "parameters": size, **training, **ask(composer.eval(), asked, dataset, env.device)}
    write_text(done, json.dumps(measured))
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return measured


def _summary(log: Path) -> dict[str, Any]:
    """Steps of a run, and the step and score of the weights that were kept."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    best = max((row for row in rows if "score" in row), key=lambda row: row["score"], default=rows[-1])
    return {"steps": len(rows), "best_step": best["step"] + 1, "held_out_recall": best.get("score")}


def flops_of_a_query(method: Method, config: ComposerConfig, image_tokens: int) -> int:
    """Floating-point operations of the matrix products of one query, a multiply-add as two, without the encoder's."""
    with torch.random.fork_rng(devices=[]):
        composer = method.build(config).eval()
    image = torch.ones(1, image_tokens, config.embedding_dim)
    text = torch.ones(1, TEXT_TOKENS, config.embedding_dim)
    counter = FlopCounterMode(display=False)
    # With gradients and plain attention, since the counter knows no fused kernels.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        composer(image, text, torch.tensor([TEXT_TOKENS]))
    return counter.get_total_flops()
