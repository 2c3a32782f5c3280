#!/usr/bin/env bash
# Milvus: with consistency level "Session", a client sees its own inserts at once, but not its own deletions.
#
# The guess: "Session" means that a client reads its own writes. pymilvus keeps the time of its last write and sends it
# with each search, and the server waits until it has come that far.
# What happens: the answer to an insert or upsert holds the time of the write, the answer to a deletion holds 0 instead.
# The next search waits for the last insert only, and for a moment still finds rows that were deleted before it. With
# level "Strong" it never does, but waits up to a tick of the server's clock (200 ms by default) every time.
# Why it matters: a photo that a shop takes down appears in the next search of the same client. A test that counts the
# rows after a deletion does not show it, because counting is asked for at level "Strong".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    pymilvus==3.0.2 milvus==2.3.5 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/data" <<'PYTHON'
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import milvus
import numpy as np
from pymilvus import CollectionSchema, DataType, FieldSchema, MilvusClient

ROWS, WIDTH = 40, 8
vectors = np.random.default_rng(7).normal(size=(ROWS, WIDTH)).astype(np.float32)
print("pymilvus", version("pymilvus"), "milvus", version("milvus"))
config = milvus.MilvusServerConfig(data_dir=sys.argv[1])
with socket.socket() as one, socket.socket() as other:  # ports of the etcd within, or no other server may run
    one.bind(("127.0.0.1", 0))
    other.bind(("127.0.0.1", 0))
    clients, peers = (f"http://127.0.0.1:{taken.getsockname()[1]}" for taken in (one, other))
etcd = Path(sys.argv[1]).with_name("etcd.yaml")
etcd.write_text(
    f"listen-client-urls: {clients}\nadvertise-client-urls: {clients}\nlisten-peer-urls: {peers}\n"
    f"initial-advertise-peer-urls: {peers}\ninitial-cluster: default={peers}\n"
)
config.template_text = config.template_text.replace("etcd:\n", f"etcd:\n  config:\n    path: {etcd}\n", 1)
server = milvus.MilvusServer(config)
server.start()
try:
    client = MilvusClient(uri=f"http://127.0.0.1:{server.listen_port}")
    fields = [
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=WIDTH),
    ]
    client.create_collection("photos", schema=CollectionSchema(fields), consistency_level="Session")
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_index("photos", index)
    client.load_collection("photos")

    def found(number, level):
        """Whether the row of this number is the nearest to its own vector."""
        query = {"data": [vectors[number]], "limit": 1, "consistency_level": level}
        return [hit["id"] for hit in client.search("photos", **query)[0]] == [number]

    for level in ("Session", "Strong"):
        inserted = deleted = 0
        for number in range(ROWS):
            client.upsert("photos", [{"id": number, "vector": vectors[number]}])
            inserted += found(number, level)
        for number in range(ROWS):
            client.delete("photos", filter=f"id in [{number}]")
            deleted += found(number, level)
        print(f"{level}: of {ROWS} rows, {inserted} found after the insert, {deleted} found after the deletion")
        if inserted != ROWS or (deleted > 0) != (level == "Session"):
            raise SystemExit(f"changed: {ROWS} found after the insert; after the deletion some, with Strong none")
finally:
    server.stop()
PYTHON
