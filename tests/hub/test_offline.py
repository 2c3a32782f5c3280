"""The cache without the Hub: copied, half-finished, read-only; each works or says exactly what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from fashion_retrieval import hub
from fashion_retrieval.checkpoint import export_manifest
from fashion_retrieval.errors import HubError, ModelNotFoundError
from tests.support import hub_fixtures
from tests.support.hub_fixtures import OPEN_CLIP, REPO, WEIGHTS, exported
from tests.support.hub_server import HubServer
from tests.support.tiny import tree

WEIGHTS_NAME = "open_clip_model.safetensors"
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
SHARDS = {f"model-0000{number}-of-00002.safetensors": WEIGHTS for number in (1, 2)}
SHARDED = {"config.json": b"{}", "model.safetensors.index.json": INDEX.encode()} | SHARDS
UNINDEXED = {"open_clip_config.json": b"{}"} | {
    f"open_clip_model-0000{n}-of-00002.safetensors": WEIGHTS for n in (1, 2)
}
ONE = {"config.json": b"{}", "model.safetensors": WEIGHTS}
PARTS = {f"{part}/{name}": data for part in ("text_encoder", "image_encoder") for name, data in ONE.items()}
NESTED = {f"0_CLIPModel/{name}": data for name, data in ONE.items()}
WORDS = OPEN_CLIP | {"open_clip_config.json": b'{"model_cfg": {"text_cfg": {"hf_tokenizer_name": "org/words"}}}'}
OURS = OPEN_CLIP | {
    "fashion_retrieval.json": json.dumps({"sha256": {WEIGHTS_NAME: "0", "segmenter.safetensors": "1"}}).encode(),
    "segmenter.safetensors": b"s",
}
server, surroundings = hub_fixtures.server, hub_fixtures.surroundings


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its attempts


def place() -> Path:
    return Path(constants.HF_HUB_CACHE, "models--house--model")


def lacking(*words: str, **arguments: object) -> None:
    """Assert that nothing resolves offline, and that the line says these words and how to get it."""
    with pytest.raises(ModelNotFoundError) as caught:
        hub.resolve(REPO, local_files_only=True, **arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("load it once with a network, without local_files_only and HF_HUB_OFFLINE")
    assert [word for word in words if word not in message] == []


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be written; root, who may write anywhere, becomes nobody."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    above = [path for path in folder.parents if path.stat().st_uid == os.getuid() and path != Path("/")]
    modes = {path: path.stat().st_mode for path in above}
    for path, mode in modes.items():
        path.chmod(mode | 0o055)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)
        for path, mode in modes.items():
            path.chmod(mode)


# Copied caches


def test_a_cache_copied_without_refs_is_found_by_its_only_snapshot(server: HubServer) -> None:
    oid = server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    shutil.rmtree(place() / "refs")
    server.requests.clear()
    for revision in (None, "main", oid, oid[:8]):
        assert hub.resolve(REPO, revision=revision, local_files_only=True) == folder
    assert server.requests == []
    server.stop()
    assert hub.resolve(REPO) == folder
    lacking("no snapshot of v1 is in", f"revision= may be one of {oid}", revision="v1")


def test_the_snapshot_of_a_tag_is_not_taken_for_main(server: HubServer) -> None:
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    (place() / "refs/main").rename(place() / "refs/v1")
    lacking("no snapshot of main is in", f"revision= may be one of {folder.name}")
    assert hub.resolve(REPO, revision="v1", local_files_only=True) == folder


def test_of_several_snapshots_without_refs_none_is_guessed(server: HubServer) -> None:
    old = server.repositories[REPO].commit(OPEN_CLIP)
    hub.resolve(REPO)
    new = server.repositories[REPO].commit({"vocab.txt": b"coat\n"})
    hub.resolve(REPO)
    shutil.rmtree(place() / "refs")
    lacking("no snapshot of main is in", "revision= may be one of", old, new)
    assert hub.resolve(REPO, revision=old, local_files_only=True).name == old


@pytest.mark.parametrize("revision", ["../../../secret", "/etc/passwd", "0" * 40, "665aaab", "v1\0"])
def test_an_odd_revision_is_not_in_the_cache(server: HubServer, tmp_path: Path, revision: str) -> None:
    oid = server.repositories[REPO].commit(OPEN_CLIP | {"other.txt": b"1"})
    hub.resolve(REPO)
    (tmp_path / "secret").write_text(oid)
    lacking("no snapshot of", revision=revision)


def test_a_copied_snapshot_is_used_in_another_place_without_links(server: HubServer, tmp_path: Path) -> None:
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    copied = tmp_path / "usb" / "models--house--model" / "snapshots" / folder.name
    shutil.copytree(folder, copied)  # follows the links, as copies do
    assert hub.resolve(REPO, cache_dir=tmp_path / "usb", local_files_only=True) == copied


def test_nothing_cached_names_the_place_that_was_looked_in(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(f"no snapshot of main is in {place()}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="no snapshot of main is in"):
        hub.resolve(REPO)
    assert server.requests == []


# Half-finished snapshots


@pytest.mark.parametrize(
    ("files", "gone", "told"),
    [
        (OPEN_CLIP, [WEIGHTS_NAME], f"lacks {WEIGHTS_NAME};"),
        (ONE, ["model.safetensors"], "lacks model.safetensors;"),
        (ONE, ["config.json"], "lacks open_clip_config.json or config.json;"),
        (SHARDED, list(SHARDS), "lacks model-00001-of-00002.safetensors, model-00002-of-00002.safetensors;"),
        (SHARDED, list(SHARDS)[1:], "lacks model-00002-of-00002.safetensors;"),
        (UNINDEXED, [list(UNINDEXED)[1]], "lacks open_clip_model-00001-of-00002.safetensors;"),
        (PARTS, ["image_encoder/model.safetensors"], "lacks image_encoder/model.safetensors;"),
        (PARTS, ["text_encoder/config.json"], "lacks text_encoder/open_clip_config.json or config.json;"),
        (NESTED, ["0_CLIPModel/model.safetensors"], "lacks 0_CLIPModel/model.safetensors;"),
        (WORDS, ["tokenizer.json", "vocab.txt"], "lacks tokenizer.json;"),
        (OURS, ["segmenter.safetensors"], "lacks segmenter.safetensors;"),
    ],
)
def test_what_a_half_finished_snapshot_lacks_is_named(
    server: HubServer, files: dict[str, bytes], gone: list[str], told: str
) -> None:
    server.repositories[REPO].commit(files)
    folder = hub.resolve(REPO)
    assert hub.resolve(REPO, local_files_only=True) == folder
    for name in gone:
        (folder / name).unlink()
        (folder / name).symlink_to("../../blobs/gone")  # as after a copy of the snapshots alone
    lacking(told)
    server.status = 500
    with pytest.raises(HubError, match=r"HTTP 500; try again later; in the cache, .* lacks "):
        hub.resolve(REPO)


def test_downloads_that_broke_off_are_counted_and_continued(server: HubServer) -> None:
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    blob = (folder / WEIGHTS_NAME).resolve()
    (folder / WEIGHTS_NAME).unlink()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    lacking(f"lacks {WEIGHTS_NAME} (1 unfinished download(s));")
    assert hub.resolve(REPO) == folder
    assert tree(folder) == OPEN_CLIP


# The Hub is down, and nobody said offline


@pytest.mark.parametrize("files", [OPEN_CLIP, SHARDED, UNINDEXED, PARTS, NESTED, OURS], ids=range(6))
@pytest.mark.parametrize("down", ["refused", "500", "gone"])
def test_a_cached_model_needs_no_hub(server: HubServer, files: dict[str, bytes], down: str) -> None:
    server.repositories[REPO].commit(files)
    folder = hub.resolve(REPO)
    shutil.rmtree(place() / "trees", ignore_errors=True)  # what some releases remember of the Hub's listing
    if down == "gone":
        server.repositories[REPO].private = True
    server.status = 500 if down == "500" else None
    if down == "refused":
        server.stop()
    assert hub.resolve(REPO) == folder
    assert hub.resolve(REPO, backend="auto") == folder


# Exported models that were not downloaded


@pytest.mark.parametrize("backend", ["torch", "auto", "onnx"])
def test_offline_the_plain_files_do_where_no_export_was_downloaded(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: package)
    server.repositories[REPO].commit(OPEN_CLIP | exported("onnx"))
    folder = hub.resolve(REPO)
    assert hub.resolve(REPO, backend=backend, local_files_only=True) == folder
    server.status = 503
    assert hub.resolve(REPO, backend=backend) == folder
    assert export_manifest.choose(folder, backend, fetched=True) is None


def test_offline_auto_leaves_an_export_whose_runtime_came_later(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: None)
    server.repositories[REPO].commit(OPEN_CLIP | exported("onnx"))
    folder = hub.resolve(REPO, backend="auto")
    assert (folder / "onnx/export.json").is_file()
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: package)
    assert hub.resolve(REPO, backend="auto", local_files_only=True) == folder
    assert export_manifest.choose(folder, "auto", fetched=True) is None
    assert export_manifest.choose(folder, "auto") == "onnx"
    lacking("lacks onnx/image.onnx;", backend="onnx")
    assert (hub.resolve(REPO, backend="auto") / "onnx/image.onnx").read_bytes() == b"graph"
    assert export_manifest.choose(folder, "auto", fetched=True) == "onnx"


def test_offline_a_graph_that_is_missing_beside_another_is_named(server: HubServer) -> None:
    server.repositories[REPO].commit(OPEN_CLIP | exported("openvino"))
    folder = hub.resolve(REPO, backend="openvino")
    (folder / "openvino/image.bin").unlink()
    lacking("lacks openvino/image.bin;", backend="openvino")
    assert hub.resolve(REPO, local_files_only=True) == folder


# A cache that can't be written


def test_a_read_only_cache_serves_what_it_has(server: HubServer) -> None:
    oid = server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    with read_only(Path(constants.HF_HUB_CACHE)):
        with pytest.raises(PermissionError):
            (folder / "new").touch()
        assert hub.resolve(REPO, local_files_only=True) == hub.resolve(REPO) == folder
        assert hub.resolve(REPO, revision=oid) == folder
        server.repositories[REPO].commit({"vocab.txt": b"coat\n"})
        assert hub.resolve(REPO) == folder
        with pytest.raises(HubError, match=r"a local file failed \(.*\); check disk space, permissions and cache_dir"):
            hub.resolve("house/other") if server.repositories["house/other"].commit(OPEN_CLIP) else None
    assert hub.resolve(REPO).name != oid
