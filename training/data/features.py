"""Token features of a frozen encoder: photos' are cached on disk by their content, texts' in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.images.load import load_image
from fashion_retrieval.models.encoder import Encoder
from training.engine.distributed import DistributedEnv

_SHARD, _BATCH = 256, 32


def image_features(encoder: Encoder, photos: Sequence[Path], cache: Path, env: DistributedEnv) -> Tensor:
    """Tokens of whole photos (`Encoder.image_tokens`): (N, 1 + k, d) float16; the encoder is in eval mode.

    A photo is known by its content: a copy, in whatever folder and order, is not encoded again, a changed one is. The
    cache is made of shards, each written whole or not at all, so that an interrupted run goes on where it was. Each
    encoder has its own shards. The processes split what is missing.
    """
    folder = cache / encoder.fingerprint[:16]
    names = [hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos]
    known = _read(folder, names)
    env.barrier()  # all have read, and miss the same, before one writes
    missing = list({name: photo for name, photo in zip(names, photos, strict=True) if name not in known}.items())
    shards = [missing[start : start + _SHARD] for start in range(0, len(missing), _SHARD)]
    own = shards[env.rank :: env.world_size]
    shown = env.is_main_process and bool(own)
    for shard in tracked(own, "photo features", len(own), shown=shown, unit="shards"):
        known |= _encode_shard(encoder, dict(shard), folder, env.device)
    env.barrier()
    if len(own) < len(shards):
        known |= _read(folder, names)
    return torch.stack([known[name] for name in names])


def _read(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The tokens of those photos that the folder has, by the SHA-256 of their content."""
    wanted = set(names)
    found: dict[str, Tensor] = {}
    for path in folder.glob("[!.]*.safetensors"):
        with suppress(SafetensorError), safe_open(path, "pt") as shard:  # a damaged one is made again
            found |= {name: shard.get_tensor(name) for name in wanted.intersection(shard.keys())}
    return found


def _encode_shard(
    encoder: Encoder, photos: Mapping[str, Path], folder: Path, device: torch.device
) -> dict[str, Tensor]:
    paths = list(photos.values())
    tokens = torch.cat([_encode(encoder, paths[s : s + _BATCH], device) for s in range(0, len(paths), _BATCH)])
    named = {name: row.clone() for name, row in zip(photos, tokens, strict=True)}
    folder.mkdir(parents=True, exist_ok=True)
    content = hashlib.sha256("".join(photos).encode()).hexdigest()[:24]
    with write_atomically(folder / f"{content}.safetensors") as partial:
        save_file(named, partial)
    return named


@torch.inference_mode()
def _encode(encoder: Encoder, photos: Sequence[Path], device: torch.device) -> Tensor:
    pixels = torch.stack([encoder.preprocess(load_image(photo)) for photo in photos])
    return encoder.image_tokens(pixels.to(device)).half().cpu()


class TextTokens:
    """Tokens of texts, each encoded once and kept as float16, as those of photos are.

    Each text is encoded alone, so that its tokens don't depend on what else a run has seen: a resumed run equals a
    straight one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(b, s, d) float32 with zeros behind each text's end, and (b,) int64 lengths, both on the CPU."""
        self.known |= {text: self._encode(text) for text in set(texts) - self.known.keys()}
        found = [self.known[text].float() for text in texts]
        return pad_sequence(found, batch_first=True), torch.tensor([len(row) for row in found])

    @torch.no_grad()
    def _encode(self, text: str) -> Tensor:
        device = next(self.encoder.parameters()).device
        with torch.autocast(device.type, enabled=False):
            words, lengths = self.encoder.text_tokens(self.encoder.tokenize([text]).to(device))
        return words[0, : int(lengths[0])].half().cpu()
