#!/usr/bin/env bash
# transformers: release 5 does not take tokenizer.json as it is; lower-casing and splitting that stand in it are dropped.
#
# The guess: a tokenizer.json holds the whole tokenizer, so AutoTokenizer.from_pretrained gives what it says, in each
# release.
# What happens: release 5 takes the vocabulary and the marks out of the file and, for T5, Gemma, XLM-R, RoBERTa and NLLB,
# builds the steps before the vocabulary anew from the class. A Lowercase step is gone, and nothing tells; release 4.57
# keeps it. With "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json release 5 takes the file as it is.
# Why it matters: text towers of the SigLIP family were trained on lower-case texts. "A Red Dress" gets other ids, so
# another embedding than the one it had a release before.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/read.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
pieces = ["<pad>", "</s>", "<unk>", "<s>", "<mask>", "▁red", "▁dress", "▁Red", "▁Dress"]
for kind in ("T5Tokenizer", "XLMRobertaTokenizer", "PreTrainedTokenizerFast"):
    words = Tokenizer(models.Unigram([(piece, -1.0 - place) for place, piece in enumerate(pieces)], unk_id=2))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | names), encoding="utf-8")
    meant = words.encode("Red Dress", add_special_tokens=False).ids
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Red Dress", add_special_tokens=False).input_ids
    print(f"transformers {transformers.__version__}, {kind}: 'Red Dress' {ids}, by the file {meant}")
    kept = transformers.__version__ < "5" or kind == "PreTrainedTokenizerFast"
    if (ids == meant) != kept:
        raise SystemExit(f"changed: {kind} gives {ids}")
PYTHON
for release in 4.57.6 5.24.0; do
    python3 -m venv "$folder/$release"
    "$folder/$release/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "transformers==$release"
    "$folder/$release/bin/python" "$folder/read.py" "$folder/model"
done
echo "Still so."
