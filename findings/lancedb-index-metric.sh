#!/usr/bin/env bash
# LanceDB: an index changes the metric of a query that names none, and bypass_vector_index() changes it back.
#
# The guess: the metric belongs to the query and is "l2" unless one is named, as the reference says. An index makes the
# query faster and a little less exact. bypass_vector_index() gives the exact answer to the same question, so comparing
# the two gives the recall of the index.
# What happens: without an index, the query means l2. Once there is a cosine index, the same query means cosine. With
# bypass_vector_index() it means l2 again. An index that looks at every vector and stores them whole then shows a recall
# of 0.1 against its "ground truth", and no warning is logged. Naming "l2" on a cosine index gives no error and no wrong
# result, whatever the reference says: LanceDB logs a warning and reads all vectors. Add fast_search() to that query,
# and it finds nothing at all.
# Why it matters: a gallery answers differently before and after somebody indexes it, and again once the index is gone.
# Thresholds on the distance change their meaning. A recall measured without a named metric says nothing. Name the
# metric in every query. On vectors of length one only the scale of the distance differs, so tests with those pass.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    lancedb==0.40.0 pyarrow==26.0.1 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/gallery" <<'PYTHON'
import sys
from importlib.metadata import version

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat

COUNT, WIDTH, BEST = 1000, 16, 10


def expect(what, observed, expected):
    print(f"{what}: {observed}")
    if observed != expected:
        raise SystemExit(f"changed: {what} was {expected}")


print("lancedb", version("lancedb"))
numbers = np.random.default_rng(7)
vectors = numbers.normal(size=(COUNT, WIDTH)) * numbers.uniform(0.2, 5, size=(COUNT, 1))
vectors = vectors.astype(np.float32)
query = numbers.normal(size=WIDTH).astype(np.float32)
column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
table = lancedb.connect(sys.argv[1]).create_table("photos", pa.table({"id": range(COUNT), "vector": column}))

euclidean = ((vectors - query) ** 2).sum(axis=1)
cosine = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
exact = {name: np.argsort(values)[:BEST].tolist() for name, values in (("l2", euclidean), ("cosine", cosine))}


def found(search):
    return [row["id"] for row in search.select(["id", "_distance"]).limit(BEST).to_list()]


def metric(search):
    ids = found(search)
    return next((name for name, best in exact.items() if best == ids), f"neither, {len(ids)} rows")


expect("\nno index; search(query)", metric(table.search(query)), "l2")

# One partition of whole vectors: every vector is looked at, so the index itself loses nothing.
table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=1))
print("\ncosine index made")
expect("search(query)", metric(table.search(query)), "cosine")
expect("search(query).bypass_vector_index()", metric(table.search(query).bypass_vector_index()), "l2")
shared = set(found(table.search(query))) & set(found(table.search(query).bypass_vector_index()))
expect(f"recall at {BEST}, no metric named", len(shared) / BEST, 0.1)
named = table.search(query).distance_type("cosine")
shared = set(found(named)) & set(found(table.search(query).distance_type("cosine").bypass_vector_index()))
expect(f"recall at {BEST}, cosine named", len(shared) / BEST, 1.0)

expect("\ndistance_type('l2')", metric(table.search(query).distance_type("l2")), "l2")
plan = table.search(query).distance_type("l2").limit(BEST).explain_plan()
expect("its plan reads all vectors", "KNNVectorDistance: metric=l2" in plan and "ANN" not in plan, True)
fast = found(table.search(query).distance_type("l2").fast_search())
expect("rows of distance_type('l2').fast_search()", len(fast), 0)

table.drop_index("vector_idx")
expect("\nindex dropped; search(query)", metric(table.search(query)), "l2")
PYTHON
