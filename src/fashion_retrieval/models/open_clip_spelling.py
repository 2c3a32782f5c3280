"""open_clip's settings and tensors as its present release spells them in a dual encoder."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from open_clip.hf_configs import arch_dict
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from torch import Tensor
from torch.nn import functional

from fashion_retrieval._utils.files import asset, read_object
from fashion_retrieval.config import ENCODER_CONFIG_NAME
from fashion_retrieval.errors import ConfigError, MissingExtraError, UnsupportedError

_RENAMED = {
    "vision_cfg": {"n_queries": "attn_pooler_queries"},
    "text_cfg": {"proj": "hf_proj_type", "pooler_type": "hf_pooler_type"},
}
"""Settings that open_clip 2 called otherwise."""
_GONE = ("global_average_pool", "input_patchnorm")
"""Settings of image towers in open_clip 2 that later releases can't compute."""


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed `open_clip_config.json` of any release as this one's: of a captioning model (CoCa), its dual encoder.

    A config that needs no change is given back equal.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    model: Any = changed.get("model_cfg")
    towers: list[Any] = [model.get(name) for name in _RENAMED] if isinstance(model, dict) else [None]
    if not all(isinstance(tower, dict) for tower in towers):
        expected = "'model_cfg' with 'vision_cfg' and 'text_cfg'"
        raise ConfigError(f"{ENCODER_CONFIG_NAME} must hold {expected}; download the model again")
    for tower, renamed in zip(towers, _RENAMED.values(), strict=True):
        for old in renamed.keys() & tower.keys():
            tower[renamed[old]] = tower.pop(old)
    for name in _GONE:
        if towers[0].pop(name, False):
            got = f"{ENCODER_CONFIG_NAME} asks for {name!r}, which only open_clip 2 computes"
            raise UnsupportedError(f"{got}; use another model")
    if model.pop("multimodal_cfg", None) is not None:
        model.pop("pad_id", None)
        for tower in towers:
            tower.pop("output_tokens", None)
    return changed


def current_weights(clip: CLIP | CustomTextCLIP, state: Mapping[str, Tensor], *, captions: bool) -> dict[str, Tensor]:
    """A state dict of any release as this one's, with what open_clip forgives.

    Older text towers, a `module.` before each name, single numbers in a list, position embeddings of another image size
    or context, a missing bias and, of a captioning model, the decoder, which a dual encoder does not have.
    """
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if captions:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("text_decoder.")}
    if isinstance(clip, CustomTextCLIP):
        state = dict(convert_to_custom_text_state_dict(state))
    own = clip.state_dict()
    state.pop("text.transformer.embeddings.position_ids", None)  # transformers 4.30 and older kept it
    for name in ("logit_scale", "logit_bias"):
        if name in own and name in state and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_scale" in state:
        state.setdefault("logit_bias", own["logit_bias"].new_zeros(own["logit_bias"].shape))
    for name in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding"):
        given = state.get(name)
        if name in own and given is not None and given.is_floating_point() and given.shape[1:] == own[name].shape[1:]:
            grid = clip.visual.grid_size if name.startswith("visual.") else None
            state[name] = _resized(given, len(own[name]), grid)
    return state


def _resized(positions: Tensor, length: int, grid: tuple[int, int] | None) -> Tensor:
    """Embeddings of positions, (n, d) -> (length, d), as open_clip interpolates: a text's, or a token's and a grid's.

    What can't be resized comes back as it is.
    """
    side = math.isqrt(max(len(positions) - 1, 0))
    if len(positions) == length or (grid and side * side + 1 != len(positions)):
        return positions
    positions = positions.float()
    if grid is None:
        return functional.interpolate(positions.T[None], size=length, mode="linear")[0].T
    cells = positions[1:].T.reshape(1, -1, side, side)
    cells = functional.interpolate(cells, size=tuple(grid), mode="bicubic", antialias=True)
    return torch.cat([positions[:1], cells.flatten(2)[0].T])


@contextmanager
def text_tower_folder(name: str, folder: Path) -> Iterator[str]:
    """A folder with the `config.json` of a text tower of transformers: the model's own, or one made for a known name.

    Nothing is downloaded. A tower whose sizes are in neither place is unsupported.
    """
    if find_spec("transformers") is None:
        remedy = "pip install 'fashion-retrieval[hf]'"
        raise MissingExtraError(f"the text tower of {folder} ({name}) needs transformers; run: {remedy}")
    own = folder / "config.json"
    if own.is_file() and read_object(own, remedy="download the model again").get("model_type") in arch_dict:
        yield str(folder)
        return
    known = json.loads(asset("transformers/text_towers.json"))
    if name not in known:
        remedy = f"put the config.json of {name} into the folder"
        raise UnsupportedError(f"the sizes of the text tower {name!r} in {folder} are not known; {remedy}")
    with TemporaryDirectory() as made:
        Path(made, "config.json").write_text(json.dumps(known[name]), encoding="utf-8")
        yield made
