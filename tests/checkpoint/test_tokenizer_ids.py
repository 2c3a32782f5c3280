"""Ids of tokenizers of transformers: what a folder says they are, and a warning where they are others."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fashion_retrieval import checkpoint
from fashion_retrieval.errors import ConfigError
from tests.support.open_clip_families import family_folder, shrink_trunks, small

NEW = int(transformers.__version__.partition(".")[0]) >= 5
WORDS = ["a", "photo", "of", "red", "dress", "two", "long", "coats", "A", "Photo", "RED", "Dress", "RED-Dress!", "café"]
TEXT = "A Photo of a RED Dress"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_trunks(monkeypatch)


def own_tokenizer(folder: Path, kind: str, **settings: Any) -> None:
    """A tokenizer file that lower-cases, as SigLIP's does, of a class of transformers."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"▁{word}", -3.0) for word in WORDS)]
    words = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    words.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0}
    told = {"tokenizer_class": kind} | names | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")


def siglip(folder: Path, kind: str, *, clean: str | None = None) -> Path:
    config = small("ViT-B-16-SigLIP")
    config["text_cfg"]["tokenizer_kwargs"] = {"clean": clean} if clean else {}
    family_folder(folder, config)
    own_tokenizer(folder, kind)
    return folder


def tokenized(folder: Path, text: str = TEXT) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return checkpoint.load(folder).encoder.tokenize([text])[0].tolist()


IDS = [3, 4, 5, 3, 6, 7, 1]


@pytest.mark.skipif(not NEW, reason="release 4 takes tokenizer.json as it is")
def test_a_tokenizer_that_is_built_anew_is_told_with_a_remedy_that_works(tmp_path: Path) -> None:
    folder = siglip(tmp_path, "T5Tokenizer")
    with pytest.warns(UserWarning, match=r"gives 'A Photo, of a RED-Dress!' the ids \[11, 12, 2, 5, ") as caught:
        checkpoint.load(folder)
    message = str(caught[0].message)
    assert len(caught) == 1
    assert "\n" not in message
    assert "by its tokenizer.json; embeddings of texts differ" in message
    settings = re.findall(r'set (".*") in its tokenizer_config.json, or install transformers<5', message)
    own_tokenizer(folder, "", **json.loads(f"{{{settings[0]}}}"))
    assert tokenized(folder)[:7] == IDS


def test_a_tokenizer_file_that_is_taken_as_it_is_says_nothing(tmp_path: Path) -> None:
    assert tokenized(siglip(tmp_path, "PreTrainedTokenizerFast"))[:7] == IDS


@pytest.mark.parametrize("clean", ["canonicalize", "lower"])
def test_what_open_clip_lower_cases_itself_is_right_in_each_release(tmp_path: Path, clean: str) -> None:
    folder = siglip(tmp_path, "T5Tokenizer", clean=clean)
    assert tokenized(folder)[:7] == IDS


def test_a_saved_folder_says_its_ids_and_keeps_what_it_says(tmp_path: Path) -> None:
    source = checkpoint.load(siglip(tmp_path / "source", "PreTrainedTokenizerFast"))
    checkpoint.save(source, tmp_path / "saved")
    told = json.loads((tmp_path / "saved/tokenizer_ids.json").read_text(encoding="utf-8"))
    assert told["written_with"] == f"transformers {transformers.__version__}"
    assert told["ids"]["a photo of a red dress"][:7] == IDS
    for text, row in told["ids"].items():
        assert torch.equal(source.encoder.tokenizer([text])[0], torch.tensor(row))
    again = checkpoint.load(tmp_path / "saved")
    checkpoint.save(again, tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert "tokenizer_ids.json" in names
    assert all((tmp_path / "again" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes() for name in names)


def test_other_ids_than_a_folder_says_are_told_with_the_release_that_wrote_them(tmp_path: Path) -> None:
    folder = siglip(tmp_path, "PreTrainedTokenizerFast")
    row = [3, 4, *[1] * 14]
    told = {"written_with": "transformers 4.57.6", "ids": {"a photo": [3, 4, 1, *[0] * 13], "a red dress": row}}
    (folder / "tokenizer_ids.json").write_text(json.dumps(told), encoding="utf-8")
    now = re.escape(f"[3, 6, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, …] with transformers {transformers.__version__} instead of ")
    then = re.escape("[3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, …] with transformers 4.57.6; ")
    with pytest.warns(UserWarning, match=f"gives 'a red dress' the ids {now}{then}.*install transformers==4.57.6"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"ids": {}}', '{"ids": {"a": [1.5]}, "written_with": "x"}', '{"ids": {"a": 1}, "written_with": "x"}'],
)
def test_a_file_of_ids_with_a_fault_is_refused(tmp_path: Path, content: str) -> None:
    folder = siglip(tmp_path, "PreTrainedTokenizerFast")
    (folder / "tokenizer_ids.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer_ids.json must hold .*download the model again") as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)


def test_clips_own_tokenizer_needs_no_file_of_ids(tmp_path: Path) -> None:
    family_folder(tmp_path / "source", small("ViT-B-32"))
    checkpoint.save(checkpoint.load(tmp_path / "source"), tmp_path / "saved")
    assert not (tmp_path / "saved/tokenizer_ids.json").exists()
