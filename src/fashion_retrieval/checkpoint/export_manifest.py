"""export.json: what an exported model is, which weights it was made from, and how near it comes to them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from fashion_retrieval._utils.files import verify_digests
from fashion_retrieval.errors import ConfigError

NAME = "export.json"
RUNTIMES = ("openvino", "onnx")
_COMPUTE = {"openvino": "openvino", "onnx": "onnxruntime"}
PRECISIONS = ("fp32", "bf16", "int8")
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An exported model.

    Attributes:
        backend: One of `RUNTIMES`.
        precision: One of `PRECISIONS`: float32; bfloat16 where the CPU has it; the image tower's products in int8.
        default: Whether `backend="auto"` may take it for the model: it kept its parity.
        encoder: Fingerprint of the encoder that it was made from.
        composer: SHA-256 of the composer's weights, or None.
        sha256: File name -> hex digest of each graph's files.
        versions: Package -> version it was made with.
        parity: Measured figures by name (see `fashion_retrieval.export.parity`).
    """

    schema_version: int = _SCHEMA_VERSION
    backend: str
    precision: str
    default: bool = False
    encoder: str
    composer: str | None
    sha256: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What lies in a backend's folder; None where nothing was exported.

        Raises:
            ConfigError: The file is not JSON, of a newer release, or has faults: all of them in one message.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not valid JSON ({error}); export the model again") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path} must hold a JSON object, got {type(data).__name__}; export the model again")
        if (version := data.get("schema_version")) != _SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has schema_version {version!r}, expected {_SCHEMA_VERSION}; export the model again"
            )
        faults = [f"{name!r} must be {rule}, got {data.get(name)!r:.80}" for name, rule, ok in _checks(data) if not ok]
        if unknown := sorted(data.keys() - {f.name for f in dataclasses.fields(cls)}):
            faults.append(f"unknown keys {', '.join(unknown)}")
        if faults:
            raise ConfigError(f"{path} has {len(faults)} fault(s): {'; '.join(faults)}; export the model again")
        return cls(**data)

    def write(self, folder: Path) -> None:
        """Write it beside the graphs."""
        text = json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"
        (folder / NAME).write_text(text, encoding="utf-8")

    def verify(self, folder: Path) -> None:
        """Compare the graphs' files with their digests.

        Raises:
            WeightsError: A file is missing, cut off or altered.
        """
        verify_digests(folder, self.sha256, remedy="export the model again")


def choose(folder: Path, backend: str) -> str | None:
    """The backend whose exported model is taken in a model's folder, None for none.

    Args:
        folder: The model's; of exported models it may hold no more than each one's export.json.
        backend: Its name or, for the first that kept its parity and whose runtime is installed, "auto".

    Raises:
        ConfigError: An export.json with faults.
    """
    for name in RUNTIMES if backend == "auto" else (backend,):
        exported = Export.read(folder / name)
        if exported and (backend != "auto" or (exported.default and find_spec(_COMPUTE[name]))):
            return name
    return None


def _checks(data: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Key, what its value must be, whether it is."""
    composer, digests = data.get("composer"), data.get("sha256")
    return [
        ("backend", f"one of {', '.join(RUNTIMES)}", data.get("backend") in RUNTIMES),
        ("precision", f"one of {', '.join(PRECISIONS)}", data.get("precision") in PRECISIONS),
        ("default", "true or false", isinstance(data.get("default"), bool)),
        ("encoder", "a sha256", _is_digest(data.get("encoder"))),
        ("composer", "a sha256 or null", composer is None or _is_digest(composer)),
        ("sha256", "a sha256 for each file name", bool(digests) and _maps(digests, _is_digest)),
        ("versions", "a text for each package", _maps(data.get("versions"), lambda v: isinstance(v, str))),
        ("parity", "a finite number for each name", _maps(data.get("parity"), _is_number)),
    ]


def _maps(value: object, accepts: Callable[[object], bool]) -> bool:
    """Whether it maps file-like names to accepted values."""
    return isinstance(value, dict) and all(map(_is_name, value)) and all(map(accepts, value.values()))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\:")


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
