"""A model folder <-> modules: safetensors only, strictly, and the same bytes again when saved.

    open_clip_config.json          the encoder's architecture and preprocessing, as open_clip reads it
    open_clip_model.safetensors    its weights
    fashion_retrieval.json         the rest (see `fashion_retrieval.config`); plain open_clip folders have none
    segmenter.safetensors          the garment segmenter's weights, where the model has one
    composer.safetensors           the composer's weights, where the model has one; tied to the encoder by its hash
    probes.safetensors             what `fit_attribute` learned, where it was called; tied to the encoder too
    dimensions.safetensors         the order in which coordinates are kept, where training.fit_dimensions made one
    prompts.safetensors            embeddings of the taxonomy's prompts, where training.embed_prompts made them
    tokenizer.json, ...            where the encoder's tokenizer is not CLIP's own
    tokenizer_ids.json             what that tokenizer gave some texts (see `checkpoint.tokenizer_ids`)

A folder that has only transformers' layout of CLIP or SigLIP (config.json, model.safetensors) is converted on loading.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fashion_retrieval._utils.files import read_object, sha256, verify_digests, write_atomically
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export
from fashion_retrieval.checkpoint.extras import REMEDY as _REMEDY
from fashion_retrieval.checkpoint.extras import Extras, write_arrays
from fashion_retrieval.checkpoint.layout import (
    EXTRAS,
    NESTED,
    OPEN_CLIP_WEIGHTS,
    file_names,
    layout_of,
    nested_names,
    nested_parts,
)
from fashion_retrieval.checkpoint.tokenizer_ids import NAME as TOKENIZER_IDS_NAME
from fashion_retrieval.checkpoint.tokenizer_ids import check_ids, written_ids
from fashion_retrieval.config import (
    COMPOSER_WEIGHTS_NAME,
    CONFIG_NAME,
    ENCODER_CONFIG_NAME,
    ENCODER_WEIGHTS_NAME,
    SEGMENTER_WEIGHTS_NAME,
    ModelConfig,
)
from fashion_retrieval.errors import ConfigError, InputError, ModelNotFoundError, WeightsError
from fashion_retrieval.models.encoder import Encoder, light_encoder
from fashion_retrieval.models.light import is_light
from fashion_retrieval.models.weights import NoRandomWeights, fill, read_weights, weight_files, weights_digest

if TYPE_CHECKING:
    from fashion_retrieval.models.composer import Composer
    from fashion_retrieval.models.segmenter import GarmentSegmenter

Part = TypeVar("Part", bound=nn.Module)
_TOKENIZER_FILES = (
    "added_tokens.json",
    "config.json",  # transformers takes the sizes of a text tower from it, and sometimes the kind of tokenizer
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    TOKENIZER_IDS_NAME,
    "vocab.json",
    "vocab.txt",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a model folder holds: modules on the CPU, in float32 and eval mode."""

    encoder: Encoder
    segmenter: GarmentSegmenter | None = None
    composer: Composer | None = None
    extras: Extras = field(default_factory=Extras)
    config: ModelConfig | None = None  # None when the folder is not in this package's format
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)  # of a tokenizer or text tower that isn't CLIP's


def load(folder: Path, *, light: bool = False) -> Bundle:
    """Load a model folder: this package's, open_clip's, or transformers' of CLIP and SigLIP.

    `light` takes the towers of `models.light` where they are the model's: without open_clip, for inference alone.
    Weights in float32 stay in their file, mapped into memory: replace it, as `save` does, but don't write into it.
    """
    config = _read_config(folder)
    parts = nested_parts(nested_names(folder)) if layout_of(file_names(folder)) is None else None
    if parts and len(parts) == 1:
        folder /= parts[0]
    digests = dict(config.sha256) if config else {}
    known = config.encoder if config and {ENCODER_WEIGHTS_NAME, ENCODER_CONFIG_NAME} <= digests.keys() else None
    if config and config.composer and not known:
        digests.pop(ENCODER_WEIGHTS_NAME, None)  # the composer's fingerprint of the encoder covers them
    verify_digests(folder, digests, remedy=_REMEDY)
    encoder = _load_encoder(folder, light=light)
    check_ids(encoder.tokenizer, folder)
    if known:  # the bytes that it was computed from are the same
        vars(encoder)["fingerprint"] = known
    return Bundle(
        encoder=encoder,
        segmenter=_load_segmenter(folder, config) if config else None,
        composer=_load_composer(folder, config, encoder) if config else None,
        extras=_read_extras(folder, config, encoder),
        config=config,
        tokenizer_files=_tokenizer_files(encoder, folder),
    )


def load_segmenter(folder: Path) -> GarmentSegmenter | None:
    """Load the segmenter of a model folder and nothing else; None for a model without one."""
    config = _read_config(folder)
    if config is None:
        return None
    digests = {name: digest for name, digest in config.sha256.items() if name == SEGMENTER_WEIGHTS_NAME}
    verify_digests(folder, digests, remedy=_REMEDY)
    return _load_segmenter(folder, config)


def save(bundle: Bundle, folder: Path) -> ModelConfig:
    """Write a model folder that `load` and plain open_clip read; equal bundles give the same bytes.

    Each file is written under another name first, then all are moved to their places, the configuration with their
    sha256 last, so that an interrupted save is noticed on loading. An exported model of other weights in the folder is
    removed; other files stay. The configuration is returned as written, by default one that is named after the folder.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder to save the model in, {folder} is a file; name another path")
    given = bundle.config or ModelConfig(name=folder.name)
    config = ModelConfig.from_dict(given.to_dict(), "the model's configuration")
    for name in ("segmenter", "composer"):
        if (getattr(config, name) is None) != (getattr(bundle, name) is None):
            raise ConfigError(f"the config must describe a {name} if and only if the model has one; set config.{name}")
    if config.probes.keys() != bundle.extras.probes.keys():
        raise ConfigError("the config must describe each probe of the model and no other; set config.probes")
    weights = _stored_weights(bundle, config.weights_dtype)
    fingerprint = bundle.encoder.stored_fingerprint(getattr(torch, config.weights_dtype))
    extras = bundle.extras.files(fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:  # what is entered last is moved first

        def staged(name: str) -> Path:
            return stack.enter_context(write_atomically(folder / name))

        config_path = staged(CONFIG_NAME)
        config_path.touch()
        paths = {name: staged(name) for name in [*weights, *extras, ENCODER_CONFIG_NAME, *bundle.tokenizer_files]}
        for name, state in weights.items():
            save_file(state, paths[name], metadata={"format": "pt"})
        for name, (arrays, told) in extras.items():
            write_arrays(paths[name], arrays, told)
        for name in (*weights, *extras):
            paths[name].chmod(config_path.stat().st_mode)  # safetensors writes files that only their owner may read
        architecture = json.dumps(bundle.encoder.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        paths[ENCODER_CONFIG_NAME].write_bytes(architecture.encode())
        for name, content in bundle.tokenizer_files.items():
            paths[name].write_bytes(content)
        digests = {name: sha256(paths[name]) for name in sorted(paths)}
        config = dataclasses.replace(config, encoder=fingerprint, sha256=digests)
        config_path.write_bytes(config.to_json().encode())
        for name in stale_exports(folder, bundle, config.weights_dtype):
            shutil.rmtree(folder / name)
    for name in {SEGMENTER_WEIGHTS_NAME, COMPOSER_WEIGHTS_NAME, *EXTRAS} - weights.keys() - extras.keys():
        (folder / name).unlink(missing_ok=True)
    return config


def stale_exports(folder: Path, bundle: Bundle, weights_dtype: str) -> list[str]:
    """Names of the exported models in a folder that were not made from a model's weights, as a type stores them."""
    dtype, stale = getattr(torch, weights_dtype), []
    for name in RUNTIMES:
        try:
            exported = Export.read(folder / name)
        except ConfigError:
            stale.append(name)
            continue
        if exported is None:
            continue
        parts = [bundle.composer, bundle.segmenter if exported.segmenter else None]
        own = [weights_digest(part, stored_as=dtype) if part else None for part in parts]
        made_from = exported.encoder, exported.composer, exported.segmenter
        words = bundle.tokenizer_files.items()  # other ones give the texts of the golden vectors other tokens
        reworded = any((folder / file).is_file() and (folder / file).read_bytes() != content for file, content in words)
        if reworded or made_from != (bundle.encoder.stored_fingerprint(dtype), *own):
            stale.append(name)
    return stale


def _stored_weights(bundle: Bundle, weights_dtype: str) -> dict[str, dict[str, Tensor]]:
    """File name -> tensors as the file holds them; a WeightsError for a weight that is not finite in that type."""
    parts = {
        ENCODER_WEIGHTS_NAME: bundle.encoder.clip,
        SEGMENTER_WEIGHTS_NAME: bundle.segmenter,
        COMPOSER_WEIGHTS_NAME: bundle.composer,
    }
    dtype = getattr(torch, weights_dtype)
    files: dict[str, dict[str, Tensor]] = {}
    for file, module in parts.items():
        if module is None:
            continue
        files[file] = {}
        for name, tensor in sorted(module.state_dict().items()):
            stored = tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()
            if not bool(torch.isfinite(stored).all()):
                raise WeightsError(f"{name} must be finite in {weights_dtype}; train again or save as float32")
            files[file][name] = stored.contiguous()
    return files


def _read_config(folder: Path) -> ModelConfig | None:
    if not folder.is_dir():
        raise ModelNotFoundError(f"expected a model folder, found none at {folder}; check the path or the model id")
    return ModelConfig.read(folder)


def _read_extras(folder: Path, config: ModelConfig | None, encoder: Encoder) -> Extras:
    if not (config and config.probes) and not any((folder / name).is_file() for name in EXTRAS):
        return Extras()  # without the encoder's fingerprint, which takes a while
    return Extras.read(folder, config, encoder.fingerprint, encoder.embedding_dim)


def _load_encoder(folder: Path, *, light: bool) -> Encoder:
    weights = next((folder / name for name in OPEN_CLIP_WEIGHTS if weight_files(folder / name)), None)
    architecture = folder / ENCODER_CONFIG_NAME
    transformers_weights = folder / "model.safetensors"
    if architecture.is_file() and weights:
        source = read_object(architecture, remedy=_REMEDY)
        if light and (encoder := _light(source)):
            fill(encoder.clip, read_weights(weights), weights)
            return encoder.eval()
        from fashion_retrieval.models.open_clip_encoder import build_encoder
        from fashion_retrieval.models.open_clip_spelling import current_weights

        with NoRandomWeights():
            encoder = build_encoder(source, folder)
        captions = "multimodal_cfg" in source["model_cfg"]
        fill(encoder.clip, current_weights(encoder.clip, read_weights(weights), captions=captions), weights)
    elif (folder / "config.json").is_file() and weight_files(transformers_weights):
        from fashion_retrieval.checkpoint.transformers_clip import open_clip_config, open_clip_weights
        from fashion_retrieval.models.open_clip_encoder import build_encoder
        from fashion_retrieval.models.open_clip_spelling import current_weights

        source = read_object(folder / "config.json", remedy=_REMEDY)
        with NoRandomWeights():
            encoder = build_encoder(open_clip_config(source, _read_preprocessor(folder), str(folder)), folder)
        state = open_clip_weights(read_weights(transformers_weights), source["model_type"])
        fill(encoder.clip, current_weights(encoder.clip, state, captions=False), transformers_weights)
    elif nested_parts(nested_names(folder)):
        encoder = _load_pair(folder)
    else:
        raise _nothing_to_load(folder)
    return encoder.eval()


def _light(source: dict[str, Any]) -> Encoder | None:
    """The light towers of a configuration that describes them; one with a fault is left to open_clip, which tells."""
    faults = (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)
    with NoRandomWeights(), suppress(*faults):
        return light_encoder(source) if is_light(source["model_cfg"]) else None
    return None


def _load_pair(folder: Path) -> Encoder:
    """CLIPTextModelWithProjection and CLIPVisionModelWithProjection; no file says their scale: it is CLIP's first."""
    from fashion_retrieval.checkpoint.transformers_clip import open_clip_config, open_clip_weights
    from fashion_retrieval.models.open_clip_encoder import build_encoder

    text, vision, photos = (folder / part for part in NESTED[1])
    towers = {
        f"{name}_config": read_object(part / "config.json", remedy=_REMEDY)
        for name, part in (("text", text), ("vision", vision))
    }
    source = {"model_type": "clip", "projection_dim": towers["text_config"].get("projection_dim", 512)} | towers
    with NoRandomWeights():
        encoder = build_encoder(open_clip_config(source, _read_preprocessor(photos), str(folder)), folder)
    state = {name: value for part in (text, vision) for name, value in read_weights(part / "model.safetensors").items()}
    fill(encoder.clip, open_clip_weights(state) | {"logit_scale": torch.tensor(math.log(1 / 0.07))}, folder)
    return encoder


def _load_segmenter(folder: Path, config: ModelConfig) -> GarmentSegmenter | None:
    if config.segmenter is None:
        return None
    from fashion_retrieval.models.segmenter import GarmentSegmenter

    return _filled(partial(GarmentSegmenter, config.segmenter), folder / SEGMENTER_WEIGHTS_NAME)


def _load_composer(folder: Path, config: ModelConfig, encoder: Encoder) -> Composer | None:
    if config.composer is None:
        return None
    from fashion_retrieval.models.composer import Composer

    if (digest := config.composer.encoder) != encoder.fingerprint:
        verify_digests(folder, config.sha256, remedy=_REMEDY)
        raise WeightsError(
            f"the composer in {folder} was trained on another encoder ({digest[:12]}…) than the one beside it "
            f"({encoder.fingerprint[:12]}…); use the two that belong together, or train it again"
        )
    return _filled(partial(Composer, config.composer), folder / COMPOSER_WEIGHTS_NAME)


def _filled(build: Callable[[], Part], path: Path) -> Part:
    with NoRandomWeights():
        part = build()
    fill(part, read_weights(path), path)
    return part.eval()


def _nothing_to_load(folder: Path) -> Exception:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        command = f"fashion-retrieval models convert {shlex.quote(str(folder))}"
        return WeightsError(
            f"expected weights as safetensors in {folder}, found only pickled ones ({', '.join(pickles[:3])}), which "
            f"can run any code when opened; if you trust them, convert them with: {command}"
        )
    expected = f"{ENCODER_CONFIG_NAME} and {ENCODER_WEIGHTS_NAME}, or config.json and model.safetensors"
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.json")):
        return ModelNotFoundError(f"expected {expected} in {folder}, found no model; check the path or the model id")
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    return WeightsError(f"expected {expected} in {folder}, found {found}; download the model again")


def _read_preprocessor(folder: Path) -> dict[str, Any] | None:
    """CLIP's image preprocessing: in a file of its own, or inside transformers 5's processor_config.json."""
    if (path := folder / "preprocessor_config.json").is_file():
        return read_object(path, remedy=_REMEDY)
    path = folder / "processor_config.json"
    return read_object(path, remedy=_REMEDY).get("image_processor") if path.is_file() else None


def _tokenizer_files(encoder: Encoder, folder: Path) -> dict[str, bytes]:
    text = encoder.config["model_cfg"]["text_cfg"]
    if not (text.get("hf_tokenizer_name") or text.get("hf_model_name")):
        return {}
    files = {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
    return written_ids(encoder.tokenizer) | files
