"""Models by id: the embedded one, folders, and the Hub over real HTTP against a local server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from fashion_retrieval import hub
from fashion_retrieval.checkpoint import export_manifest
from fashion_retrieval.errors import ConfigError, HubError, InputError, ModelNotFoundError, WeightsError
from tests.support import hub_fixtures
from tests.support.hub_fixtures import OPEN_CLIP, REPO, WEIGHTS, exported
from tests.support.hub_server import TOKEN, HubServer
from tests.support.tiny import contents, tree

TRANSFORMERS = {"config.json": b"{}", "model.safetensors": WEIGHTS[::-1]}
MIXED = TRANSFORMERS | {"open_clip_config.json": b"{}", "open_clip_pytorch_model.bin": b"x"}
SECOND_NAME = {"open_clip_config.json": b"{}", "open_clip_pytorch_model.safetensors": WEIGHTS}
SHARDS = {"open_clip_config.json": b"{}"} | {f"open_clip_model-0000{n}-of-00002.safetensors": WEIGHTS for n in (1, 2)}
UNTRUSTED = exported("openvino", default=False)
server, surroundings = hub_fixtures.server, hub_fixtures.surroundings


def is_cached(model_id, **arguments):
    """Whether a model resolves without a network."""
    try:
        hub.resolve(model_id, local_files_only=True, **arguments)
    except ModelNotFoundError:
        return False
    return True


# Without the Hub


def test_compact_is_the_folder_in_the_package(monkeypatch, tmp_path):
    (tmp_path / "assets" / "compact").mkdir(parents=True)
    (tmp_path / "assets" / "compact" / "open_clip_config.json").write_text("{}")
    monkeypatch.setattr("fashion_retrieval.hub.find.files", lambda package: tmp_path)
    assert hub.resolve("compact", local_files_only=True) == hub.resolve("compact") == tmp_path / "assets" / "compact"


def test_an_installation_without_the_embedded_model_says_reinstall(monkeypatch, tmp_path):
    monkeypatch.setattr("fashion_retrieval.hub.find.files", lambda package: tmp_path)
    with pytest.raises(ModelNotFoundError, match="pip install --force-reinstall fashion-retrieval"):
        hub.resolve("compact")


def test_a_folder_is_itself(tmp_path):
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    assert hub.resolve(folder) == folder
    assert hub.resolve(str(folder)) == folder
    assert hub.resolve("org/name") == Path("org/name")


def test_home_is_expanded(monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert hub.resolve("~/mine") == tmp_path / "mine"


def test_a_folder_has_no_revisions(tmp_path):
    with pytest.raises(InputError, match="revision 'v1' was given for the folder"):
        hub.resolve(tmp_path, revision="v1")


@pytest.mark.parametrize(
    "name",
    ["", "./no", "../no", "~/no", "/no/such", "a/b/c", "kompact", "a b/c", "a--b/c", "org/", Path("org/name")],
)
def test_what_is_no_folder_and_no_id_never_reaches_the_hub(server, name):
    with pytest.raises(ModelNotFoundError, match="expected 'compact', a folder that exists, or a Hub id 'org/name'"):
        hub.resolve(name)
    assert server.requests == []


# Downloads


def test_first_download_brings_every_file_once(server):
    oid = server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    assert contents(folder) == OPEN_CLIP
    assert folder.name == oid
    assert server.served == {name: len(data) for name, data in OPEN_CLIP.items()}


@pytest.mark.parametrize("files", [SECOND_NAME, SHARDS])
def test_open_clips_other_names_of_weights_are_downloaded(server, files):
    server.repositories[REPO].commit(files | TRANSFORMERS | {"open_clip_pytorch_model.bin": b"x"})
    assert contents(hub.resolve(REPO)) == files | {"config.json": b"{}"}
    if files is SECOND_NAME:
        server.repositories[REPO].commit(files | OPEN_CLIP)
        assert contents(hub.resolve(REPO)) == OPEN_CLIP | {"config.json": b"{}"}


PARTS = {f"{part}/{name}": data for part in ("text_encoder", "image_encoder") for name, data in TRANSFORMERS.items()}


@pytest.mark.parametrize(
    "files",
    [{f"0_CLIPModel/{name}": data for name, data in TRANSFORMERS.items()}, PARTS | {"feature_extractor/a.json": b"{}"}],
)
def test_models_in_parts_are_downloaded(server, files):
    more = {"modules.json": b"[]", "unet/model.safetensors": b"x", "image_encoder/old.bin": b"x", "README.md": b"#"}
    server.repositories[REPO].commit(files | more)
    folder = hub.resolve(REPO)
    assert tree(folder) == files | {name: more[name] for name in ("modules.json", "README.md")}
    server.stop()
    assert hub.resolve(REPO, local_files_only=True) == folder


def test_second_call_downloads_nothing(server):
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    server.served.clear()
    server.requests.clear()
    assert hub.resolve(REPO) == folder
    assert server.served == {}
    assert all(request.path.startswith("/api/models/house/model/revision/") for request in server.requests)


@pytest.mark.parametrize("files", [OPEN_CLIP, TRANSFORMERS, OPEN_CLIP | TRANSFORMERS, MIXED, SECOND_NAME, SHARDS])
@pytest.mark.parametrize("revision", [None, "main"])
def test_cached_model_needs_no_network(server, files, revision):
    server.repositories[REPO].commit(files)
    folder = hub.resolve(REPO)
    server.stop()
    assert hub.resolve(REPO, revision=revision) == folder


def test_cached_model_needs_no_working_hub(server):
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    server.status = 500
    assert hub.resolve(REPO) == folder


def test_offline_modes_use_the_cache_and_ask_nobody(server, monkeypatch):
    server.repositories[REPO].commit(OPEN_CLIP)
    assert not is_cached(REPO)
    folder = hub.resolve(REPO)
    server.requests.clear()
    assert is_cached(REPO)
    assert hub.resolve(REPO, local_files_only=True) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.resolve(REPO) == folder
    assert server.requests == []


def test_cache_dir_is_honored(server, tmp_path):
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO, cache_dir=tmp_path / "elsewhere")
    assert folder.is_relative_to(tmp_path / "elsewhere")
    assert is_cached(REPO, cache_dir=tmp_path / "elsewhere")
    assert not is_cached(REPO)


def test_a_pinned_revision_stays_what_it_was(server):
    repository = server.repositories[REPO]
    old = repository.commit(OPEN_CLIP)
    repository.branches["v1"] = old
    new = repository.commit({"open_clip_model.safetensors": b"retrained"})
    for revision, oid, weights in [(old, old, WEIGHTS), ("v1", old, WEIGHTS), (None, new, b"retrained")]:
        folder = hub.resolve(REPO, revision=revision)
        assert folder.name == oid
        assert (folder / "open_clip_model.safetensors").read_bytes() == weights
    assert server.served["vocab.txt"] == len(OPEN_CLIP["vocab.txt"])


def test_our_own_layout_brings_the_segmenter(server):
    server.repositories[REPO].commit(OPEN_CLIP | {"segmenter.safetensors": b"s", "fashion_retrieval.json": b"{}"})
    assert {"segmenter.safetensors", "fashion_retrieval.json"} <= contents(hub.resolve(REPO)).keys()


def test_weights_in_two_layouts_are_fetched_once(server):
    server.repositories[REPO].commit(OPEN_CLIP | TRANSFORMERS | {"other.safetensors": b"o"})
    assert contents(hub.resolve(REPO)) == OPEN_CLIP | {"config.json": b"{}"}
    assert not server.gets("model.safetensors")


def test_weights_another_library_cached_do_not_change_the_choice(server):
    server.repositories[REPO].commit(OPEN_CLIP | TRANSFORMERS)
    hf_hub_download(REPO, "model.safetensors")
    assert "open_clip_model.safetensors" in contents(hub.resolve(REPO))


@pytest.mark.parametrize(
    "weights",
    [
        {"model.safetensors": b"w"},
        {"model-00001-of-00002.safetensors": b"a", "model-00002-of-00002.safetensors": b"b"},
    ],
)
def test_transformers_layout_alone_is_fetched(server, weights):
    files = {"config.json": b"{}"} | weights
    server.repositories[REPO].commit(files)
    assert contents(hub.resolve(REPO)) == files


def test_pickles_code_and_subfolders_are_never_downloaded(server):
    extra = ["pytorch_model.bin", "model.pt", "modeling.py", "onnx/model.onnx", "onnx/config.json", "flax.msgpack"]
    server.repositories[REPO].commit(OPEN_CLIP | dict.fromkeys(extra, b"x"))
    assert contents(hub.resolve(REPO)) == OPEN_CLIP
    assert server.served.keys() == OPEN_CLIP.keys()


@pytest.mark.parametrize(
    ("backend", "fetched"),
    [
        ("torch", {}),
        ("openvino", UNTRUSTED),
        ("onnx", exported("onnx")),
        ("auto", {"openvino/export.json": UNTRUSTED["openvino/export.json"]} | exported("onnx")),
        ("tpu", {}),
    ],
)  # fmt: skip
def test_an_exported_model_is_fetched_for_those_who_take_it(server, monkeypatch, backend, fetched):
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: package)
    other = {"onnx/model.pt": b"x", "openvino/notes.json": b"{}", "code/export.json": b"{}"}
    server.repositories[REPO].commit(OPEN_CLIP | UNTRUSTED | exported("onnx") | other)
    folder = hub.resolve(REPO, backend=backend)
    assert tree(folder) == OPEN_CLIP | fetched
    server.requests.clear()
    assert hub.resolve(REPO, backend=backend, local_files_only=True) == folder
    assert server.requests == []
    assert tree(folder) == OPEN_CLIP | fetched


def test_an_exported_model_is_left_where_its_runtime_is_missing(server, monkeypatch):
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: None)
    server.repositories[REPO].commit(OPEN_CLIP | exported("onnx"))
    assert "onnx/image.onnx" not in tree(hub.resolve(REPO, backend="auto"))
    assert tree(hub.resolve(REPO, backend="onnx")) == OPEN_CLIP | exported("onnx")


def test_resolve_refuses_a_faulty_description_of_an_exported_model(server):
    server.repositories[REPO].commit(OPEN_CLIP | {"onnx/export.json": b"{}"})
    with pytest.raises(
        ConfigError, match=r"onnx.export\.json has schema_version None, expected 1; export the model again$"
    ):
        hub.resolve(REPO, backend="onnx")
    assert tree(hub.resolve(REPO)) == OPEN_CLIP | {"onnx/export.json": b"{}"}


def test_only_pickled_weights_are_refused_with_the_command_that_converts(server):
    server.repositories[REPO].commit({"config.json": b"{}", "pytorch_model.bin": b"x", "old.pt": b"x"})
    with pytest.raises(WeightsError) as caught:
        hub.resolve(REPO)
    assert "only pickled weights (old.pt, pytorch_model.bin)" in str(caught.value)
    convert = "hf download house/model --local-dir DIR && fashion-retrieval models convert DIR"
    assert str(caught.value).endswith(convert)
    assert f"{server.url}/house/model/discussions has one of SFconvertbot: revision='refs/pr/NUMBER'" in str(
        caught.value
    )
    assert server.served.keys() == {"config.json"}


def test_the_hubs_conversion_is_a_revision(server):
    server.repositories[REPO].commit({"config.json": b"{}", "pytorch_model.bin": b"x"})
    server.repositories[REPO].commit(TRANSFORMERS, branch="refs/pr/3")
    assert contents(hub.resolve(REPO, revision="refs/pr/3")) == TRANSFORMERS


@pytest.mark.parametrize("files", [{"data.csv": b"1"}, {"config.json": b"{}"}])
def test_a_repository_without_weights_is_refused(server, files):
    server.repositories[REPO].commit(files)
    with pytest.raises(WeightsError, match=r"expected open_clip_model\.safetensors or model\.safetensors"):
        hub.resolve(REPO)


# Interruptions


def test_a_cut_file_goes_on_where_it_stopped(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.repositories[REPO].commit(OPEN_CLIP)
    server.cuts["open_clip_model.safetensors"] = [len(WEIGHTS) // 2]
    assert contents(hub.resolve(REPO)) == OPEN_CLIP
    ranges = [request.range for request in server.gets("open_clip_model.safetensors")]
    assert ranges == [None, f"bytes={len(WEIGHTS) // 2}-"]
    assert server.served["open_clip_model.safetensors"] == len(WEIGHTS)


def test_after_a_broken_download_the_next_call_fetches_only_what_is_missing(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.repositories[REPO].commit(OPEN_CLIP)
    server.cuts["open_clip_model.safetensors"] = [len(WEIGHTS) // 2] + [0] * 9
    with pytest.raises(HubError, match=r"can't download house/model: .*check the network and call again"):
        hub.resolve(REPO)
    assert not is_cached(REPO)
    server.cuts.clear()
    server.served.clear()
    assert contents(hub.resolve(REPO)) == OPEN_CLIP
    assert server.served == {"open_clip_model.safetensors": len(WEIGHTS)}


def test_text_files_alone_do_not_count_as_cached(server, monkeypatch):
    server.repositories[REPO].commit(OPEN_CLIP)
    folder = hub.resolve(REPO)
    (folder / "open_clip_model.safetensors").unlink()
    assert not is_cached(REPO)
    with pytest.raises(ModelNotFoundError, match="is not \\(completely\\) in the cache and downloads are off"):
        hub.resolve(REPO, local_files_only=True)
    assert hub.resolve(REPO) == folder
    assert contents(folder) == OPEN_CLIP


# Refusals: each is one line with a remedy


def refused(error, *words, **arguments):
    with pytest.raises(error) as caught:
        hub.resolve(REPO, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("token", [None, TOKEN])
def test_resolve_of_an_unknown_repository_is_refused(server, token):
    refused(ModelNotFoundError, "'house/model'", "check the id", "token=", token=token)


@pytest.mark.parametrize("revision", ["v9", "0" * 40])
def test_resolve_of_an_unknown_revision_is_refused(server, revision):
    server.repositories[REPO].commit(OPEN_CLIP)
    refused(ModelNotFoundError, f"no revision '{revision}'", f"{server.url}/house/model/commits", revision=revision)


@pytest.mark.parametrize(("token", "status"), [(None, 401), (TOKEN, 403)])
def test_resolve_of_a_gated_repository_is_refused(server, token, status):
    server.repositories[REPO].commit(OPEN_CLIP)
    server.repositories[REPO].gated = True
    words = ("is gated", f"HTTP {status}", f"accept its license at {server.url}/house/model", "token=")
    refused(HubError, *words, token=token)


def test_private_repository_opens_with_its_token(server):
    server.repositories[REPO].commit(OPEN_CLIP)
    server.repositories[REPO].private = True
    refused(ModelNotFoundError, "if it is private, pass token=")
    assert contents(hub.resolve(REPO, token=TOKEN)) == OPEN_CLIP
    assert {request.token for request in server.gets("open_clip_model.safetensors")} == {TOKEN}


def test_resolve_with_a_bad_token_is_refused(server):
    server.repositories[REPO].commit(OPEN_CLIP)
    refused(HubError, "HTTP 401", "the token is not valid", "hf auth login", token="hf_wrong")


def test_token_asked_for_but_none_stored(server):
    refused(HubError, "no token is stored", "hf auth login", token=True)


@pytest.mark.parametrize(
    ("status", "word"), [(403, "pass the token="), (429, "wait a few minutes"), (500, "try again later")]
)
def test_resolve_names_the_http_status(server, status, word):
    server.status = status
    refused(HubError, f"HTTP {status}", word)


def test_resolve_without_network_is_refused(server):
    server.stop()
    refused(HubError, "ConnectError", "check the network")


def test_offline_and_not_cached(server, monkeypatch):
    refused(ModelNotFoundError, "without local_files_only and HF_HUB_OFFLINE", local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(ModelNotFoundError, "without local_files_only and HF_HUB_OFFLINE")
    assert server.requests == []


def test_a_cache_that_can_not_be_written(server, tmp_path):
    server.repositories[REPO].commit(OPEN_CLIP)
    (tmp_path / "file").write_text("")
    refused(HubError, "a local file failed", "cache_dir", cache_dir=tmp_path / "file")


# Through the environment variables, as a user sets them

SCRIPT = """
from fashion_retrieval import hub
from fashion_retrieval.errors import FashionRetrievalError
for model_id in ("house/model", "house/other"):
    try:
        print(hub.resolve(model_id).name)
    except FashionRetrievalError as error:
        print(type(error).__name__)
"""


def run_script(**variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {"HF_HUB_DISABLE_TELEMETRY": "1"} | variables
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_endpoint_and_offline_come_from_the_environment(tmp_path):
    with HubServer() as running:
        oid = running.repositories[REPO].commit(OPEN_CLIP)
        online = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": running.url}
        assert run_script(**online) == [oid, "ModelNotFoundError"]
        assert running.served == {name: len(data) for name, data in OPEN_CLIP.items()}
        running.requests.clear()
        assert run_script(**online, HF_HUB_OFFLINE="1") == [oid, "ModelNotFoundError"]
        assert running.requests == []
