#!/usr/bin/env bash
# LanceDB: two NOT IN lists joined by OR are true of a row whose value is null.
#
# The guess: a comparison with a null is never true in SQL, so s NOT IN ('a') leaves out the rows without an s, and
# s NOT IN ('a', 'b') OR s NOT IN ('c', 'd') does, too: null OR null is null.
# What happens: each list alone leaves the null out. Joined by OR, lists that share no value become the constant true
# before a row is read, and the filter finds every row, also those whose value is null. NOT (s IN … AND s IN …) is
# rewritten to the same. With <> in place of NOT IN, or with a shared value, the answer is right.
# Why it matters: filters are often put together by a program, as one exclusion for each of a user's wishes. Rows without
# the value then come back in the one case in which the lists are disjoint, and no test with a single list shows it.
# Write (s IS NOT NULL AND s NOT IN (…)).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: lancedb==0.40.0 pyarrow==26.0.1

"$folder/venv/bin/python" - "$folder/gallery" <<'PYTHON'
import sqlite3
import sys
from importlib.metadata import version

import lancedb
import pyarrow as pa

VALUES = ["a", "b", "c", "d", None]
table = lancedb.connect(sys.argv[1]).create_table("photos", pa.table({"s": VALUES}))
base = sqlite3.connect(":memory:")
base.execute("CREATE TABLE photos (s TEXT)")
base.executemany("INSERT INTO photos VALUES (?)", [(value,) for value in VALUES])
print("lancedb", version("lancedb"), "sqlite", sqlite3.sqlite_version)

for condition, expected in (
    ("s NOT IN ('a', 'b')", ["c", "d"]),
    ("s NOT IN ('a', 'b') OR s NOT IN ('c', 'd')", ["a", "b", "c", "d", None]),
    ("NOT (s IN ('a', 'b') AND s IN ('c', 'd'))", ["a", "b", "c", "d", None]),
    ("s NOT IN ('a', 'b') OR s NOT IN ('b', 'd')", ["a", "c", "d"]),
    ("s <> 'a' OR s <> 'c'", ["a", "b", "c", "d"]),
    ("(s IS NOT NULL AND s NOT IN ('a', 'b')) OR (s IS NOT NULL AND s NOT IN ('c', 'd'))", ["a", "b", "c", "d"]),
):
    found = table.search().where(condition).to_arrow()["s"].to_pylist()
    right = [value for (value,) in base.execute(f"SELECT s FROM photos WHERE {condition}")]
    print(f"{condition}\n    lancedb {found}\n    sqlite  {right}")
    if found != expected or right != [value for value in expected if value is not None]:
        raise SystemExit(f"changed: lancedb found {expected}, sqlite the same without the null")
PYTHON
