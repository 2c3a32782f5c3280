"""Token features of a frozen encoder: photos' are cached on disk by what they depend on, texts' in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
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

    The cache is made of shards, each written whole or not at all, so that an interrupted run goes on where it was. A
    photo that changes is encoded again; each encoder has its own shards. The processes split them.
    """
    folder = cache / encoder.fingerprint[:16]
    shards = [photos[start : start + _SHARD] for start in range(0, len(photos), _SHARD)]
    if env.world_size > 1:
        for shard in shards[env.rank :: env.world_size]:
            _shard(encoder, shard, folder, env.device)
        env.barrier()
    watched = tracked(shards, "photo features", len(shards), shown=env.is_main_process, unit="shards")
    return torch.cat([_shard(encoder, shard, folder, env.device) for shard in watched])


def _shard(encoder: Encoder, photos: Sequence[Path], folder: Path, device: torch.device) -> Tensor:
    states = [(photo.name, photo.stat().st_size, photo.stat().st_mtime_ns) for photo in photos]
    path = folder / f"{hashlib.sha256(json.dumps(states).encode()).hexdigest()[:24]}.safetensors"
    try:
        return load_file(path)["tokens"]
    except (FileNotFoundError, SafetensorError):
        tokens = torch.cat([_encode(encoder, photos[s : s + _BATCH], device) for s in range(0, len(photos), _BATCH)])
        folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as partial:
            save_file({"tokens": tokens}, partial)
        return tokens


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
