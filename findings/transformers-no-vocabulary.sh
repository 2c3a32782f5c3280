#!/usr/bin/env bash
# transformers: a tokenizer whose vocabulary file is missing loads without an error, and takes every word for unknown.
#
# The guess: AutoTokenizer.from_pretrained of a folder raises where the file with the vocabulary is missing, as
# AutoModel does where the weights are.
# What happens: for T5, Gemma and XLM-R, release 5 makes a tokenizer of a handful of marks. All texts of as many words
# have the same ids.
# Why it matters: a download that broke off, or a clone that left out large files, gives text embeddings that are all
# alike, and nothing tells. Look at the size of the vocabulary after loading.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: transformers==5.24.0

mkdir "$folder/model"
"$folder/venv/bin/python" - "$folder/model" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer

print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
for kind in ("T5Tokenizer", "GemmaTokenizer", "XLMRobertaTokenizer"):
    Path(sys.argv[1], "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}), encoding="utf-8")
    try:
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    except (OSError, ValueError) as error:
        raise SystemExit(f"changed: {kind} without its vocabulary is an error now: {error}")
    ids = tokenizer(["red dress", "blue jeans"]).input_ids
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    print(f"{kind}: {len(words)} words besides its marks {sorted(words)[:3]}, 'red dress' {ids[0]}, 'blue jeans' {ids[1]}")
    if ids[0] != ids[1]:
        raise SystemExit(f"changed: {kind} tells words apart")
PYTHON
echo "Still so."
