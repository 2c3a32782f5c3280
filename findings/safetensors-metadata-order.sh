#!/usr/bin/env bash
# safetensors writes several words of metadata in another order in each process: equal models, other bytes.
#
# The guess: save_file is a plain serialization. The same tensors and the same metadata, given in the same order, give
# the same file, so its SHA-256 tells whether weights changed, and a hub or a git store keeps one copy of equal weights.
# What happens: the metadata are a hash map on the way, seeded anew in each process. With two words or more their order in
# the header, and so the file's SHA-256, differs from run to run; with one word, or none, the bytes are equal. The
# tensors are written in an order of their own, which is always the same.
# Why it matters: peers write {"format": "pt"} and one word of their own beside it. Content addresses, caches and "saved
# again, nothing changed" checks of such files fail by chance.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: safetensors==0.8.0 numpy==2.4.6
cat >"$folder/write.py" <<'PYTHON'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

words = {f"word{number}": "x" for number in range(int(sys.argv[1]))}
tensors = {name: np.arange(6, dtype=np.float32) for name in ("b", "a", "c")}
print(hashlib.sha256(save(tensors, metadata=words or None)).hexdigest()[:12])
PYTHON
"$folder/venv/bin/pip" list --format freeze 2>/dev/null | grep safetensors
for words in 0 1 8; do
    for _ in 1 2 3 4 5; do "$folder/venv/bin/python" "$folder/write.py" "$words"; done | sort -u >"$folder/$words"
    echo "$words words of metadata: $(wc -l <"$folder/$words") different files of 5"
done
[ "$(wc -l <"$folder/0")" = 1 ] && [ "$(wc -l <"$folder/1")" = 1 ] && [ "$(wc -l <"$folder/8")" -gt 1 ]
