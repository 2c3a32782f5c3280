#!/usr/bin/env bash
# The tests of the Hub with the oldest huggingface_hub that pyproject.toml allows and the newest, or with your choice:
#
#   bash tests/hub_versions.sh              # huggingface_hub==1.31.0, and the newest of huggingface_hub>=1.31
#   bash tests/hub_versions.sh '==2.4.0'
#
# Each version is installed in front of the active environment, which stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -eq 0 ]; then set -- '==1.31.0' '>=1.31'; fi
for version in "$@"; do
    place="$folder/$version"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$place" "huggingface_hub$version"
    export PYTHONPATH="$place:$PWD/src:$PWD"
    python3 -c "import huggingface_hub as hub; print('huggingface_hub', hub.__version__, 'from', hub.__file__)"
    python3 -m pytest -n0 tests/hub
done
