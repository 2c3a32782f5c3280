"""Whether a tokenizer of transformers gives the ids that its model was made with; its releases differ.

    tokenizer_ids.json      {"written_with": "transformers 5.24.0", "ids": {text: its row}}, written by `save`

Where a repository has none, its tokenizer.json says what the ids are: release 5 of transformers builds some kinds anew
from the vocabulary, without the file's lower-casing and splitting.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from fashion_retrieval._utils.files import read_object
from fashion_retrieval.errors import ConfigError

if TYPE_CHECKING:
    from open_clip.tokenizer import HFTokenizer
    from torch import Tensor

NAME = "tokenizer_ids.json"
_TEXTS = ("a photo of a red dress", "A Photo, of a RED-Dress!", " two  long coats", "café Ünï 42", "\uff21\uff22 don't")


def written_ids(tokenizer: Callable[[list[str]], Tensor]) -> dict[str, bytes]:
    """The file of a tokenizer of transformers as it is now, by its name; none of CLIP's own."""
    if not _is_of_transformers(tokenizer):
        return {}
    rows = dict(zip(_TEXTS, tokenizer(list(_TEXTS)).tolist(), strict=True))
    told = {"written_with": f"transformers {version('transformers')}", "ids": rows}
    return {NAME: (json.dumps(told, ensure_ascii=False) + "\n").encode()}


def check_ids(tokenizer: Callable[[list[str]], Tensor], folder: Path) -> None:
    """Warn, in one line, of the first text whose ids are not those that the folder says.

    Raises:
        ConfigError: A file that does not hold rows of ids by text.
    """
    if not _is_of_transformers(tokenizer):
        return
    for text, got, wanted, source, remedy in (_saved if (folder / NAME).is_file() else _own)(tokenizer, folder):
        if got != wanted:
            now = f"transformers {version('transformers')}"
            warnings.warn(
                f"the tokenizer in {folder} gives {text!r} the ids {_short(got)} with {now} instead of "
                f"{_short(wanted)} {source}; embeddings of texts differ from those the model was made for: {remedy}",
                stacklevel=2,
            )
            return


def _saved(tokenizer: HFTokenizer, folder: Path) -> Iterator[tuple[str, list[int], list[int], str, str]]:
    told = read_object(folder / NAME, remedy="download the model again")
    rows, writer = told.get("ids"), told.get("written_with")
    if not isinstance(rows, dict) or not isinstance(writer, str) or not all(map(_is_row, rows.values())):
        expected = "'written_with' and 'ids', whole numbers by text"
        raise ConfigError(f"{folder / NAME} must hold {expected}; download the model again, or remove the file")
    for text, wanted in rows.items():
        yield text, tokenizer([text])[0].tolist(), wanted, f"with {writer}", f"install {writer.replace(' ', '==')}"


def _own(tokenizer: HFTokenizer, folder: Path) -> Iterator[tuple[str, list[int], list[int], str, str]]:
    used = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
    if used is None or not (folder / "tokenizer.json").is_file():
        return
    from tokenizers import Tokenizer

    meant = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": tokenizer.tokenizer.padding_side}
    remedy = f"set {json.dumps(settings)[1:-1]} in its tokenizer_config.json, or install transformers<5"
    for text in _TEXTS:
        clean = tokenizer.clean_fn(text)
        got, wanted = (each.encode(clean, add_special_tokens=False).ids for each in (used, meant))
        yield text, got, wanted, "by its tokenizer.json", remedy


def _is_of_transformers(tokenizer: object) -> TypeGuard[HFTokenizer]:
    return type(tokenizer).__name__ == "HFTokenizer"  # open_clip's, which is not imported for other models


def _is_row(value: Any) -> bool:  # noqa: ANN401  # whatever JSON has
    return isinstance(value, list) and all(type(item) is int for item in value)


def _short(ids: list[int]) -> str:
    return f"{ids[:12]}"[:-1] + ("]" if len(ids) <= 12 else ", …]")
