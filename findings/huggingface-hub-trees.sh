#!/usr/bin/env bash
# huggingface_hub: whether a half-finished snapshot counts as cached depends on a folder beside it, `trees`.
#
# The guess: snapshot_download(local_files_only=True) answers by the files that are in the snapshot: the folder comes
# back, or an error says that something is missing.
# What happens: the listing of the repository is remembered in trees/COMMIT.json. With it, an error tells of missing
# files, also of those that nobody downloaded on purpose (the call that asks for "onnx/*" fails where only the plain
# files were fetched). Without it, as in a cache that an older release or a copy of refs, blobs and snapshots made, the
# same call gives the folder back, and nothing tells that the weights are not in it.
# Why it matters: offline, one cached model fails and the next is taken for whole. Look for the files that you need in
# the folder yourself, in either case.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: huggingface_hub==2.4.0

HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_XET=1 "$folder/venv/bin/python" - "$folder/cache" <<'PYTHON'
import json
import shutil
import sys
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "onnx/model.onnx": b"graph"}
COMMIT = "5" * 40


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        data, headers = FILES.get(name), {}
        if data is not None:
            headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        elif "/tree/" in self.path:
            entries = [{"type": "file", "path": p, "size": len(d), "oid": sha1(d).hexdigest()} for p, d in FILES.items()]
            data = json.dumps(entries).encode()
        else:
            data = json.dumps({"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": []}).encode()
        self.send_response(200)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def offline(patterns):
    try:
        found = snapshot_download("org/name", cache_dir=cache, allow_patterns=patterns, local_files_only=True)
    except LocalEntryNotFoundError as error:
        return f"{type(error).__name__}"
    return sorted(path.relative_to(found).as_posix() for path in Path(found).rglob("*") if path.is_file())


cache = Path(sys.argv[1])
server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
snapshot_download("org/name", cache_dir=cache, allow_patterns=["*.json"], endpoint=endpoint)
server.shutdown()
print("huggingface_hub", version("huggingface_hub"))
with_listing = {patterns: offline([patterns]) for patterns in ("*.json", "*.safetensors", "onnx/*")}
copy = cache.with_name("copy")
cache = shutil.copytree(cache, copy, symlinks=True, ignore=shutil.ignore_patterns("trees"))
without = {patterns: offline([patterns]) for patterns in with_listing}
for patterns, found in with_listing.items():
    print(f"{patterns}: {found} with the listing, {without[patterns]} without")
if with_listing["*.safetensors"] != "IncompleteSnapshotError" or with_listing["onnx/*"] != "IncompleteSnapshotError":
    raise SystemExit("changed: files that were never downloaded are no error")
if without["*.safetensors"] != ["config.json"]:
    raise SystemExit("changed: without the listing, missing weights are an error too")
PYTHON
echo "Still so."
