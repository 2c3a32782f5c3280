"""What lies beside a model's weights and is read without torch: probes, the basis of shorter embeddings, prompts.

Each was made with the encoder of one fingerprint and is refused beside another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fashion_retrieval._utils.files import check_downloaded
from fashion_retrieval.config import DIMENSIONS_NAME, PROBES_WEIGHTS_NAME, PROMPTS_NAME, ModelConfig
from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models.probe import Probe

REMEDY = "download the model again"
Floats = NDArray[np.float32]


class Prompts(Mapping[str, Floats]):
    """Embeddings of texts that were computed once, by the encoder itself in float32; found by a hash of the text."""

    def __init__(self, keys: NDArray[np.uint64], rows: NDArray[np.float16]) -> None:
        self.keys_of_texts, self.rows = keys, rows
        self._places = dict(zip(keys.tolist(), range(len(keys)), strict=True))

    @classmethod
    def of(cls, texts: Iterable[str], rows: Floats) -> Prompts:
        """Of different texts, with their embeddings, (N, d) L2-normalized."""
        return cls(np.array([_key(text) for text in texts], np.uint64), rows.astype(np.float16))

    def __getitem__(self, text: str) -> Floats:
        row = self.rows[self._places[_key(text)]].astype(np.float32)
        found: Floats = row / np.sqrt(np.einsum("d,d->", row, row))
        return found

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and _key(text) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("prompts are kept without their texts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What was found of them in a model folder."""

    probes: Mapping[str, Probe] = field(default_factory=dict)  # by attribute group
    basis: Floats | None = None  # (D, D), of `FashionModel.shorten`
    prompts: Prompts | None = None

    @classmethod
    def read(cls, folder: Path, config: ModelConfig | None, fingerprint: str, width: int) -> Extras:
        """What belongs to the encoder of this fingerprint and of embeddings of this width."""
        return cls(
            probes=_read_probes(folder, config, fingerprint, width) if config and config.probes else {},
            basis=_read_basis(folder / DIMENSIONS_NAME, fingerprint, width),
            prompts=_read_prompts(folder / PROMPTS_NAME, fingerprint, width),
        )

    def files(self, fingerprint: str) -> dict[str, tuple[dict[str, NDArray[Any]], dict[str, str]]]:
        """File name -> arrays and metadata, for an encoder of this fingerprint."""
        told = {"encoder": fingerprint}  # one word alone: safetensors writes several in another order each time
        found: dict[str, tuple[dict[str, NDArray[Any]], dict[str, str]]] = {}
        if self.probes:
            ordered = enumerate(self.probes[name] for name in sorted(self.probes))
            arrays = {f"{i}.{name}": array for i, probe in ordered for name, array in probe.state.items()}
            found[PROBES_WEIGHTS_NAME] = arrays, {"format": "pt"}
        if self.basis is not None:
            found[DIMENSIONS_NAME] = {"basis": self.basis.astype(np.float16)}, told  # as it was read
        if self.prompts is not None:
            found[PROMPTS_NAME] = {"keys": self.prompts.keys_of_texts, "rows": self.prompts.rows}, told
        return found


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], told: dict[str, str]) -> None:
    """Write a safetensors file."""
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path, told)


def _read_probes(folder: Path, config: ModelConfig, fingerprint: str, width: int) -> dict[str, Probe]:
    path, probes = folder / PROBES_WEIGHTS_NAME, {}
    arrays, _ = _read(path)
    for place, name in enumerate(sorted(config.probes)):
        values, owner = config.probes[name].values, config.probes[name].encoder
        if owner != fingerprint:
            got = f"another encoder ({owner:.12}…) than the one beside it ({fingerprint:.12}…)"
            raise WeightsError(f"the probe of {name!r} in {folder} was trained on {got}; call fit_attribute again")
        start = Probe.start(values, width)
        given = {part: arrays.pop(f"{place}.{part}", None) for part in start.state}
        for part, array in given.items():
            wanted = start.state[part]
            if array is None or array.shape != wanted.shape or array.dtype != np.float32:
                got = "nothing" if array is None else f"{array.dtype} {array.shape}"
                expected = f"{place}.{part}, float32 {wanted.shape}"
                raise WeightsError(f"{path} must hold {expected}, of the probe of {name!r}, got {got}; {REMEDY}")
        probes[name] = Probe(values, **{part: array for part, array in given.items() if array is not None})
    if arrays:
        raise WeightsError(f"{path} holds {', '.join(sorted(arrays)[:3])}, of no probe in its configuration; {REMEDY}")
    return probes


def _read_basis(path: Path, fingerprint: str, width: int) -> Floats | None:
    if not path.is_file():
        return None
    arrays, owner = _read(path)
    basis = arrays["basis"] if list(arrays) == ["basis"] else np.empty(0)
    if basis.dtype != np.float16 or basis.shape != (width, width) or not np.isfinite(basis).all():
        expected = f"one finite float16 tensor 'basis' of {width} x {width}"
        raise WeightsError(f"{path} must hold {expected}, got {basis.dtype} {basis.shape}; {REMEDY}")
    _check_owner(path, owner, fingerprint, "fitted to", "fit it again with python -m training.fit_dimensions")
    return basis.astype(np.float32)


def _read_prompts(path: Path, fingerprint: str, width: int) -> Prompts | None:
    if not path.is_file():
        return None
    arrays, owner = _read(path)
    keys, rows = arrays.get("keys", np.empty(0)), arrays.get("rows", np.empty(0))
    if keys.dtype != np.uint64 or rows.dtype != np.float16 or rows.shape != (*keys.shape, width):
        expected = f"uint64 keys (N,) and float16 rows (N, {width})"
        got = f"{keys.dtype} {keys.shape}, {rows.dtype} {rows.shape}"
        raise WeightsError(f"{path} must hold {expected}, got {got}; {REMEDY}, or remove the file")
    _check_owner(path, owner, fingerprint, "made with", "make it again with python -m training.embed_prompts")
    return Prompts(keys, rows)


def _check_owner(path: Path, owner: str | None, fingerprint: str, made: str, again: str) -> None:
    if owner != fingerprint:
        remedy = f"remove the file, or {again}"
        raise WeightsError(f"{path} was {made} another encoder ({owner!s:.12}…) than the one beside it; {remedy}")


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], str | None]:
    """The arrays of a file, and the encoder that its metadata name."""
    check_downloaded(path)
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get("encoder")  # noqa: SIM118  # it has no other way
    except (SafetensorError, OSError, TypeError) as error:
        raise WeightsError(f"{path} is truncated or corrupt ({error}); {REMEDY}, or remove the file") from error


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
