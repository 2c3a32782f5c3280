"""A model folder <-> modules: safetensors only, strictly, and the same bytes again when saved.

    open_clip_config.json          the encoder's architecture and preprocessing, as open_clip reads it
    open_clip_model.safetensors    its weights
    fashion_retrieval.json         the rest (see `fashion_retrieval.config`); plain open_clip folders have none
    segmenter.safetensors          the garment segmenter's weights, where the model has one
    composer.safetensors           the composer's weights, where the model has one; tied to the encoder by its hash
    tokenizer.json, ...            where the encoder's tokenizer is not CLIP's own

A folder that has only the transformers CLIP layout (config.json, model.safetensors) is converted on loading.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fashion_retrieval._utils.files import sha256, verify_digests
from fashion_retrieval.checkpoint.transformers_clip import open_clip_config, open_clip_weights
from fashion_retrieval.config import (
    COMPOSER_WEIGHTS_NAME,
    CONFIG_NAME,
    ENCODER_CONFIG_NAME,
    ENCODER_WEIGHTS_NAME,
    SEGMENTER_WEIGHTS_NAME,
    ModelConfig,
)
from fashion_retrieval.errors import ConfigError, InputError, ModelNotFoundError, WeightsError
from fashion_retrieval.models.encoder import Encoder, build_encoder, upgrade_weights
from fashion_retrieval.models.inference_copy import NoRandomWeights

if TYPE_CHECKING:
    from fashion_retrieval.models.composer import Composer
    from fashion_retrieval.models.segmenter import GarmentSegmenter

_TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a model folder holds.

    Attributes:
        encoder: On the CPU, float32, in eval mode.
        segmenter: The same, or None for a model without one.
        composer: The same.
        config: None when the folder is not in this package's format.
        tokenizer_files: File name -> content, for an encoder whose tokenizer is not CLIP's own.
    """

    encoder: Encoder
    segmenter: GarmentSegmenter | None = None
    composer: Composer | None = None
    config: ModelConfig | None = None
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)


def load(folder: Path) -> Bundle:
    """Load a model folder: this package's, open_clip's, or one in the transformers CLIP layout.

    Weights in float32 stay in their file, mapped into memory: replace it, as `save` does, but don't write into it.

    Args:
        folder: A local folder; see `fashion_retrieval.hub` for the way from a model id to one.

    Raises:
        ModelNotFoundError: No such folder, or no model in it.
        ConfigError: A configuration file with a fault, or of a newer release.
        WeightsError: Weights that are pickled, truncated, altered or of another architecture.
        MissingExtraError: The tokenizer needs transformers.
        UnsupportedError: A model that is not a plain dual encoder.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"expected a model folder, found none at {folder}; check the path or the model id")
    config = None
    if (folder / CONFIG_NAME).is_file():
        config = ModelConfig.from_dict(_read_json(folder / CONFIG_NAME), str(folder / CONFIG_NAME))
        verify_digests(folder, config.sha256, remedy="download the model again")
    encoder = _load_encoder(folder)
    return Bundle(
        encoder=encoder,
        segmenter=_load_segmenter(folder, config) if config else None,
        composer=_load_composer(folder, config, encoder) if config else None,
        config=config,
        tokenizer_files=_tokenizer_files(encoder, folder),
    )


def save(bundle: Bundle, folder: Path) -> ModelConfig:
    """Write a model folder that `load` and plain open_clip read; equal bundles give the same bytes.

    All files are written beside the folder first and moved into it one by one, last the configuration with their
    sha256, so that an interrupted save is noticed on loading. Other files of the folder stay.

    Args:
        bundle: One without a config gets a default one, named after the folder.
        folder: Made where it does not exist.

    Returns:
        The configuration as written, with the files' sha256.

    Raises:
        ConfigError: The config has a fault, or does not agree with the segmenter or the composer.
        InputError: The path is a file.
        WeightsError: A weight is infinite or not a number, or becomes so in the config's weights_dtype.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder to save the model in, {folder} is a file; name another path")
    given = bundle.config or ModelConfig(name=folder.name)
    config = ModelConfig.from_dict(given.to_dict(), "the model's configuration")
    for name in ("segmenter", "composer"):
        if (getattr(config, name) is None) != (getattr(bundle, name) is None):
            raise ConfigError(f"the config must describe a {name} if and only if the model has one; set config.{name}")
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    staging.mkdir(parents=True)
    try:
        _write_files(bundle, config, staging)
        names = sorted(path.name for path in staging.iterdir())
        digests = {name: sha256(staging / name) for name in names}
        config = dataclasses.replace(config, sha256=digests)
        (staging / CONFIG_NAME).write_bytes(config.to_json().encode())
        folder.mkdir(exist_ok=True)
        mode = (staging / CONFIG_NAME).stat().st_mode  # safetensors writes files that only their owner may read
        for name in [*names, CONFIG_NAME]:
            (staging / name).chmod(mode)
            (staging / name).replace(folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for name, part in ((SEGMENTER_WEIGHTS_NAME, bundle.segmenter), (COMPOSER_WEIGHTS_NAME, bundle.composer)):
        if part is None:
            (folder / name).unlink(missing_ok=True)
    return config


def _write_files(bundle: Bundle, config: ModelConfig, folder: Path) -> None:
    _write_weights(bundle.encoder.clip, folder / ENCODER_WEIGHTS_NAME, config.weights_dtype)
    if bundle.segmenter is not None:
        _write_weights(bundle.segmenter, folder / SEGMENTER_WEIGHTS_NAME, config.weights_dtype)
    if bundle.composer is not None:
        _write_weights(bundle.composer, folder / COMPOSER_WEIGHTS_NAME, config.weights_dtype)
    architecture = json.dumps(bundle.encoder.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / ENCODER_CONFIG_NAME).write_bytes(architecture.encode())
    for name, content in bundle.tokenizer_files.items():
        (folder / name).write_bytes(content)


def _write_weights(module: nn.Module, path: Path, dtype_name: str) -> None:
    dtype = getattr(torch, dtype_name)
    state = {}
    for name, tensor in sorted(module.state_dict().items()):
        stored = tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()
        if not bool(torch.isfinite(stored).all()):
            raise WeightsError(f"{name} must be finite in {dtype_name}, it is not; train again or save as float32")
        state[name] = stored.contiguous()
    save_file(state, path, metadata={"format": "pt"})


def _load_encoder(folder: Path) -> Encoder:
    weights = folder / ENCODER_WEIGHTS_NAME
    architecture = folder / ENCODER_CONFIG_NAME
    transformers_weights = folder / "model.safetensors"
    if architecture.is_file() and weights.is_file():
        with NoRandomWeights():
            encoder = build_encoder(_read_object(architecture), folder)
        state = upgrade_weights(encoder.clip, _read_weights(weights))
        _fill(encoder.clip, state, weights)
    elif (folder / "config.json").is_file() and transformers_weights.is_file():
        source = _read_object(folder / "config.json")
        with NoRandomWeights():
            encoder = build_encoder(open_clip_config(source, _read_preprocessor(folder), str(folder)), folder)
        _fill(encoder.clip, open_clip_weights(_read_weights(transformers_weights)), transformers_weights)
    else:
        raise _nothing_to_load(folder)
    return encoder.eval()


def _load_segmenter(folder: Path, config: ModelConfig) -> GarmentSegmenter | None:
    if config.segmenter is None:
        return None
    from fashion_retrieval.models.segmenter import GarmentSegmenter

    with NoRandomWeights():
        segmenter = GarmentSegmenter(config.segmenter)
    _fill(segmenter, _read_weights(folder / SEGMENTER_WEIGHTS_NAME), folder / SEGMENTER_WEIGHTS_NAME)
    return segmenter.eval()


def _load_composer(folder: Path, config: ModelConfig, encoder: Encoder) -> Composer | None:
    if config.composer is None:
        return None
    from fashion_retrieval.models.composer import Composer

    trained_on = config.composer.encoder
    if trained_on != encoder.fingerprint:
        raise WeightsError(
            f"the composer in {folder} was trained on another encoder ({trained_on[:12]}…) than the one beside it "
            f"({encoder.fingerprint[:12]}…); use the two that belong together, or train it again"
        )
    with NoRandomWeights():
        composer = Composer(config.composer)
    _fill(composer, _read_weights(folder / COMPOSER_WEIGHTS_NAME), folder / COMPOSER_WEIGHTS_NAME)
    return composer.eval()


def _nothing_to_load(folder: Path) -> Exception:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        command = f"python -m training.export convert {shlex.quote(str(folder))}"
        return WeightsError(
            f"expected weights as safetensors in {folder}, found only pickled ones ({', '.join(pickles[:3])}), which "
            f"can run any code when opened; if you trust them, convert them with: {command}"
        )
    expected = f"{ENCODER_CONFIG_NAME} and {ENCODER_WEIGHTS_NAME}, or config.json and model.safetensors"
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.json")):
        return ModelNotFoundError(f"expected {expected} in {folder}, found no model; check the path or the model id")
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    return WeightsError(f"expected {expected} in {folder}, found {found}; download the model again")


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Make the tensors of a file a module's own, as float32; one too many, missing or of another shape is an error."""
    own = module.state_dict()
    differing = [name for name in own.keys() & state.keys() if _signature(own[name]) != _signature(state[name])]
    lists = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "of another shape or type": differing,
    }
    faults = [f"{label}: {_first_few(names)}" for label, names in lists.items() if names]
    if faults:
        raise WeightsError(
            f"{path} is a file for another architecture than its configuration describes ({'; '.join(faults)}); "
            "use the weights that belong to it"
        )
    taken = {name: state[name].to(tensor.dtype).contiguous() for name, tensor in own.items()}
    module.load_state_dict(taken, strict=True, assign=True)


def _signature(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def _first_few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is truncated, corrupt or missing ({error}); download the model again") from error
    return state


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); download the model again") from error


def _read_object(path: Path) -> dict[str, Any]:
    data = _read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(data).__name__}; download the model again")
    return data


def _read_preprocessor(folder: Path) -> dict[str, Any] | None:
    """CLIP's image preprocessing: in a file of its own, or inside transformers 5's processor_config.json."""
    if (folder / "preprocessor_config.json").is_file():
        return _read_object(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        return _read_object(folder / "processor_config.json").get("image_processor")
    return None


def _tokenizer_files(encoder: Encoder, folder: Path) -> dict[str, bytes]:
    if not encoder.config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        return {}
    return {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
