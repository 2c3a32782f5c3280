#!/usr/bin/env bash
# The gallery's tests with the oldest and the newest LanceDB that pyproject.toml allows, or with versions of your choice:
#
#   bash tests/lancedb_versions.sh              # lancedb==0.40.0, and the newest of lancedb>=0.40,<1
#   bash tests/lancedb_versions.sh '==0.40.0'
#
# Each version is installed in front of the active environment, which stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -eq 0 ]; then set -- '==0.40.0' '>=0.40,<1'; fi
for version in "$@"; do
    place="$folder/$version"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$place" "lancedb$version"
    export PYTHONPATH="$place:$PWD/src:$PWD"
    python3 -c "import lancedb; print('lancedb', lancedb.__version__, 'from', lancedb.__file__)"
    python3 -m pytest -n0 tests/gallery tests/shards -k "not milvus"
done
