"""CLIP's tokenizer without open_clip: the same tokens from its own vocabulary file."""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
"""open_clip's file of merges, the most frequent first."""
_START, _END = "<start_of_text>", "<end_of_text>"
_MERGES = 49152 - 256 - 2
_WORDS = rf"(?i){_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"
"""For `regex`, as in open_clip: another library knows letters of another Unicode."""


class ClipTokenizer:
    """Texts -> token ids; its vocabulary is read when the first text comes."""

    def __init__(self, vocabulary: Path, context_length: int) -> None:
        self.vocabulary = vocabulary
        self.context_length = context_length

    @classmethod
    def of_open_clip(cls, context_length: int) -> ClipTokenizer:
        """With the vocabulary that is installed with open_clip, which is not imported."""
        found = find_spec("open_clip")
        folders = (found.submodule_search_locations if found else None) or ["open_clip"]
        return cls(Path(folders[0], VOCABULARY), context_length)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(b, `context_length`) int64: each text between its marks, cut off or filled up with zeros."""
        found = np.zeros((len(texts), self.context_length), np.int64)
        start, end = len(_letters()) * 2 + _MERGES, len(_letters()) * 2 + _MERGES + 1
        words = [_split(text) for text in texts]
        for row, encoding in zip(found, self._bytes.encode_batch(words, is_pretokenized=True), strict=True):
            ids = [start, *encoding.ids, end]
            row[: len(ids)] = ids[: self.context_length]
            if len(ids) > self.context_length:
                row[-1] = end
        return found

    @cached_property
    def _bytes(self) -> Tokenizer:
        from tokenizers import Tokenizer, models, pre_tokenizers

        if not self.vocabulary.is_file():
            raise WeightsError(f"expected CLIP's vocabulary at {self.vocabulary}, found none; install open_clip_torch")
        lines = gzip.decompress(self.vocabulary.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
        merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
        letters = _letters()
        words = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges), _START, _END]
        vocabulary = {word: place for place, word in enumerate(words)}
        made = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.add_special_tokens([_START, _END])
        return made


def _split(text: str) -> list[str]:
    """Words as open_clip has them: mended encoding, no entities of HTML, single spaces, lower case."""
    import ftfy
    import regex

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    words: list[str] = regex.findall(_WORDS, " ".join(mended.split()).lower())
    return words


def _letters() -> list[str]:
    """The 256 bytes as letters, in the order of the vocabulary: those that can be printed first."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [*map(chr, shown), *(chr(256 + place) for place in range(len(hidden)))]
