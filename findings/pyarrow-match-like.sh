#!/usr/bin/env bash
# pyarrow: match_like reads the escapes of a pattern that begins or ends with % as text, depending on what stands there.
#
# The guess: in match_like, as in SQL's LIKE, a backslash before %, _ or another backslash means that character, wherever
# it stands in the pattern. So 'a\\%' finds what begins with a, backslash, and the same pattern with a wildcard more at
# its other end finds more.
# What happens: a pattern of plain text with % at its ends is answered by a search for a substring, prefix or suffix. That
# search takes the text between the wildcards as it stands, the backslashes of its escapes with it, so it looks for two
# backslashes where the pattern means one, and finds other rows. With _ or a further % inside, the same escape is read right.
# is_in has a surprise of its own: it tells -0.0 from 0.0, which equal() takes for the same number.
# Why it matters: who escapes a user's text for LIKE by the book (%, _ and the backslash) loses the rows whose text holds a
# backslash, such as paths of Windows, and only for the most common patterns. Use match_substring, starts_with or a
# regular expression where the text holds a backslash.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: pyarrow==26.0.1

"$folder/venv/bin/python" - <<'PYTHON'
import sqlite3
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc

VALUES = [r"shop\new\a", r"shop\\new", "shopnew", r"\new"]
texts = pa.array(VALUES)
base = sqlite3.connect(":memory:")
base.execute("PRAGMA case_sensitive_like = ON")
print("pyarrow", version("pyarrow"), "sqlite", sqlite3.sqlite_version)

for pattern, expected, right in (
    (r"%\\new%", [r"shop\\new"], [r"shop\new\a", r"shop\\new", r"\new"]),
    (r"shop\\new%", [r"shop\\new"], [r"shop\new\a"]),
    (r"%\\new", [r"shop\\new"], [r"shop\\new", r"\new"]),
    (r"shop\\n_w%", [r"shop\new\a"], [r"shop\new\a"]),
    (r"%p\\n%w%", [r"shop\new\a"], [r"shop\new\a"]),
):
    found = texts.filter(pc.match_like(texts, pattern)).to_pylist()
    wanted = [text for text in VALUES if base.execute("SELECT ? LIKE ? ESCAPE '\\'", (text, pattern)).fetchone()[0]]
    print(f"{pattern}\n    match_like {found}\n    sqlite     {wanted}")
    if found != expected or wanted != right:
        raise SystemExit(f"changed: match_like found {expected}, sqlite {right}")

zeros = pa.array([0.0, -0.0])
found = pc.is_in(zeros, pa.array([0.0])).to_pylist(), pc.equal(zeros, 0.0).to_pylist()
print("[0.0, -0.0]: is_in [0.0]", found[0], "equal 0.0", found[1])
if found != ([True, False], [True, True]):
    raise SystemExit("changed: is_in told -0.0 from 0.0, equal did not")
PYTHON
