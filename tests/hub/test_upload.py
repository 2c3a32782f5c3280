"""Uploads over real HTTP to a local server that speaks the Hub's protocol, and the list of what would be sent."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import ModelCard, constants

from fashion_retrieval import FashionModel, checkpoint, hub
from fashion_retrieval.config import ComposerConfig, ModelConfig
from fashion_retrieval.errors import ConfigError, HubError, InputError, WeightsError
from fashion_retrieval.models.composer import Composer
from tests.support import hub_fixtures
from tests.support.hub_fixtures import OPEN_CLIP, REPO, WEIGHTS, exported
from tests.support.hub_server import TOKEN, WRITE_TOKEN, HubServer
from tests.support.tiny import contents, drawn_photo, tiny_folder

FILES = OPEN_CLIP | {"segmenter.safetensors": b"small"}
server, surroundings = hub_fixtures.server, hub_fixtures.surroundings

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
"""huggingface_hub uploads with an argument that its HTTP client deprecates."""


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def head(server, branch="main"):
    """Files of a branch's last commit."""
    repository = server.repositories[REPO]
    return repository.commits[repository.branches[branch]]


# What is sent


def test_push_sends_the_same_bytes(server, saved):
    upload = hub.push(saved, REPO, token=WRITE_TOKEN)
    repository = server.repositories[REPO]
    assert upload.url == f"{server.url}/house/model/commit/{repository.branches['main']}"
    assert head(server) == contents(saved)
    assert repository.messages[-1] == "Upload with fashion-retrieval"
    assert not repository.private
    assert sorted(len(parts) for parts in server.parts.values()) == [1, -(-len(WEIGHTS) // server.part_size)]


def test_pushed_model_comes_back(server, saved):
    upload = hub.push(saved, REPO, token=WRITE_TOKEN)
    assert contents(hub.resolve(REPO, revision=upload.url.rsplit("/", 1)[1])) == contents(saved)


def test_push_leaves_out_what_is_not_the_model(server, saved):
    (saved / "last.ckpt").write_bytes(b"x")
    (saved / "logs").mkdir()
    (saved / "runs.json").mkdir()
    (saved / "logs" / "run.json").write_bytes(b"x")
    hub.push(saved, REPO, token=WRITE_TOKEN)
    assert head(server) == FILES


def test_an_exported_model_is_sent_with_its_folder(server, saved):
    files = exported("openvino") | exported("onnx", default=False)
    for name, data in (files | {"onnx/notes.txt": b"x"}).items():
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_bytes(data)
    upload = hub.push(saved, REPO, token=WRITE_TOKEN)
    assert head(server) == FILES | files
    large = {file.name for file in upload.files if file.lfs}
    assert large & files.keys() == {"openvino/image.bin", "onnx/image.onnx"}
    assert {sha256(files[name]) for name in large & files.keys()} <= server.lfs.keys()
    (saved / "onnx/image.onnx").write_bytes(b"altered")
    with pytest.raises(WeightsError, match=r"image\.onnx was altered or cut off"):
        hub.push(saved, REPO, dry_run=True)


def test_push_again_sends_what_changed_and_commits_on_top(server, saved):
    first = hub.push(saved, REPO, token=WRITE_TOKEN)
    server.requests.clear()
    (saved / "README.md").write_bytes(b"# Better\n")
    second = hub.push(saved, REPO, token=WRITE_TOKEN, commit_message="Better card")
    assert first.url != second.url
    assert server.repositories[REPO].messages[-1] == "Better card"
    assert head(server) == FILES | {"README.md": b"# Better\n"}
    assert [request.path for request in server.requests if request.method == "PUT"] == []


def test_push_of_what_is_there_makes_no_commit(server, saved):
    first = hub.push(saved, REPO, token=WRITE_TOKEN)
    assert hub.push(saved, REPO, token=WRITE_TOKEN) == first
    assert len(server.repositories[REPO].commits) == 2


def test_push_private_and_to_a_branch(server, saved):
    hub.push(saved, REPO, token=WRITE_TOKEN, private=True, revision="v2")
    assert server.repositories[REPO].private
    assert head(server, "v2") == contents(saved)
    assert head(server) == {}


# A dry run


def test_a_dry_run_lists_exactly_what_a_push_then_sends(server, saved):
    plan = hub.push(saved, REPO, private=True, revision="v2", commit_message="First", dry_run=True)
    assert server.requests == []
    sent = hub.push(saved, REPO, token=WRITE_TOKEN, private=True, revision="v2", commit_message="First")
    assert replace(sent, url=None) == plan
    there = head(server, "v2")
    assert {file.name: file.sha256 for file in plan.files} == {name: sha256(data) for name, data in there.items()}
    assert {file.name: file.size for file in plan.files} == {name: len(data) for name, data in there.items()}
    assert {file.sha256 for file in plan.files if file.lfs} == server.lfs.keys()
    assert (plan.repo_id, plan.revision, plan.private, plan.commit_message) == (REPO, "v2", True, "First")


def test_a_plan_reads_as_a_list(server, saved):
    text = str(hub.push(saved, REPO, private=True, dry_run=True))
    first, *rows, last = text.splitlines()
    assert first == (
        f"{server.url}/house/model, branch main, private if new: 'Upload with fashion-retrieval' (not sent)"
    )
    assert rows[0].split() == ["regular", "10", sha256(b"# A model\n"), "README.md"]
    assert [row.split()[0] for row in rows] == ["regular", "regular", "LFS", "LFS", "regular", "regular"]
    assert last == f"6 files, {sum(map(len, FILES.values())):,} bytes"


def test_large_texts_count_as_large_files(saved):
    (saved / "tokenizer.json").write_bytes(b" " * 10_000_001)
    plan = hub.push(saved, REPO, dry_run=True)
    assert [file.name for file in plan.files if file.lfs] == [
        "open_clip_model.safetensors",
        "segmenter.safetensors",
        "tokenizer.json",
    ]


def test_a_folder_that_its_configuration_disowns_is_not_sent(server, saved):
    config = ModelConfig(name="m", sha256={"open_clip_model.safetensors": sha256(WEIGHTS)})
    (saved / "fashion_retrieval.json").write_text(config.to_json())
    assert len(hub.push(saved, REPO, dry_run=True).files) == 7
    (saved / "open_clip_model.safetensors").write_bytes(WEIGHTS[1:])
    with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors was altered .*; save the model again"):
        hub.push(saved, REPO, token=WRITE_TOKEN)
    (saved / "fashion_retrieval.json").write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        hub.push(saved, REPO, token=WRITE_TOKEN)
    assert server.requests == []


def test_push_refuses_what_is_no_model_no_id_and_no_message(server, saved, tmp_path):
    with pytest.raises(InputError, match=r"holds no open_clip_model\.safetensors"):
        hub.push(tmp_path / "nowhere", REPO)
    with pytest.raises(InputError, match="'model' is not a Hub id"):
        hub.push(saved, "model")
    with pytest.raises(InputError, match="commit_message must not be empty"):
        hub.push(saved, REPO, commit_message=" ")
    assert server.requests == []


# Refusals and interruptions: one line with a remedy, and nothing half-committed


def refused(saved, *words, repo=REPO, **arguments):
    with pytest.raises(HubError) as caught:
        hub.push(saved, repo, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, ("(HTTP 401, no token)", "pass a token= with write permission, or run `hf auth login`")),
        ("hf_wrong", ("(HTTP 401, the token is not valid)", "hf auth login")),
        (TOKEN, ("(HTTP 403)", "pass a token= that may write for 'house'")),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_push_without_permission(server, saved, token, words, exists):
    if exists:
        server.repositories[REPO].commit({})
    refused(saved, "no permission to write to house/model", *words, token=token)
    assert list(server.repositories) == ([REPO] if exists else [])


@pytest.mark.parametrize("exists", [True, False])
def test_push_to_a_repository_of_another_owner(server, saved, exists):
    other = "other/model"
    if exists:
        server.repositories[other].commit({})
    words = ("no permission to write to other/model (HTTP 403)", "may write for 'other', or name a repository of your")
    refused(saved, *words, repo=other, token=WRITE_TOKEN)
    assert all(len(repository.commits) == 1 for repository in server.repositories.values())


def test_push_with_a_token_asked_for_but_none_stored(server, saved):
    refused(saved, "no token is stored on this machine", "hf auth login", token=True)


def test_push_without_network(server, saved, monkeypatch):
    server.stop()
    refused(saved, "can't upload to house/model: ", "check the network", token=WRITE_TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(saved, "while HF_HUB_OFFLINE is set; unset it", token=WRITE_TOKEN)


def test_push_to_a_failing_hub(server, saved):
    server.status = 500
    refused(saved, "can't upload to house/model: the Hub answered HTTP 500; try again later", token=WRITE_TOKEN)


def test_a_card_that_the_hub_refuses_stops_everything(server, saved):
    server.card_errors = ['"license" must be one of [apache-2.0, mit]']
    refused(saved, "refused the model card", '"license" must be one of', token=WRITE_TOKEN)
    assert head(server) == {}
    assert server.lfs == {}


def test_a_connection_cut_once_in_a_large_file_is_made_good(server, saved, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.upload_cuts = {sha256(WEIGHTS): [500]}
    hub.push(saved, REPO, token=WRITE_TOKEN)
    assert server.upload_cuts == {sha256(WEIGHTS): []}
    assert head(server) == FILES


def test_a_connection_that_stays_cut_commits_nothing_and_the_next_push_goes_on(server, saved, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.push(saved, REPO, token=WRITE_TOKEN)
    better = WEIGHTS[::-1]
    (saved / "open_clip_model.safetensors").write_bytes(better)
    (saved / "composer.safetensors").write_bytes(b"new")
    server.upload_cuts = {sha256(better): [500] * 20}
    refused(saved, "can't upload to house/model", "check the network and call again", token=WRITE_TOKEN)
    assert head(server) == FILES
    assert sha256(b"new") in server.lfs
    server.upload_cuts.clear()
    server.requests.clear()
    hub.push(saved, REPO, token=WRITE_TOKEN)
    assert head(server) == contents(saved)
    assert {request.path.split("/")[2] for request in server.requests if request.method == "PUT"} == {sha256(better)}


# A whole model, through the front door


@pytest.fixture
def model(tmp_path):
    """A tiny model of ours with a composer."""
    bundle = checkpoint.load(tiny_folder(tmp_path / "plain", seed=3))
    shape = ComposerConfig(embedding_dim=16, width=16, depth=1, heads=2, hidden=16, encoder=bundle.encoder.fingerprint)
    config = ModelConfig(name="tiny", composer=shape, license="MIT")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        composer = Composer(shape).eval()
    joined = replace(bundle, composer=composer, config=config)
    return FashionModel(joined, model_id=str(tmp_path / "plain"), device="cpu", dtype="float32")


def test_a_model_pushed_and_loaded_again_is_the_same(server, model, tmp_path):
    server.part_size = 10**7
    plan = model.push_to_hub(REPO, dry_run=True)
    assert server.requests == []
    upload = model.push_to_hub(REPO, token=WRITE_TOKEN)
    assert replace(upload, url=None) == plan
    again = FashionModel.from_pretrained(
        REPO, revision=upload.url.rsplit("/", 1)[1], cache_dir=tmp_path / "c", device="cpu", dtype="float32"
    )
    photo = drawn_photo()
    assert again.fingerprint == model.fingerprint
    assert (again.revision, model.revision) == (upload.url.rsplit("/", 1)[1], None)
    assert np.array_equal(again.compose(photo, "in red"), model.compose(photo, "in red"))
    assert again.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == head(server)


def test_the_card_of_a_pushed_model_tells_how_to_load_it(server, model, tmp_path):
    server.part_size = 10**7
    model.push_to_hub(REPO, token=WRITE_TOKEN)
    card = ModelCard(head(server)["README.md"].decode())
    assert str(tmp_path) not in card.content
    assert card.data.license == "mit"
    digest = sha256(head(server)["composer.safetensors"])
    assert f"| `composer.safetensors` | `{digest}` |" in card.content
    assert 'FashionModel.from_pretrained("house/model")' in card.content
    names = {}
    code = card.content.split("```python\n")[2].split("```")[0]
    assert "open_clip.create_model_from_pretrained" in code
    exec(compile(code, "card", "exec"), names)
    clip, preprocess = names["clip"].eval(), names["preprocess"]
    with torch.inference_mode():
        plain = clip.encode_image(preprocess(drawn_photo())[None], normalize=True)
    np.testing.assert_allclose(plain.numpy(), model.encode(images=drawn_photo()), atol=1e-6)
    assert isinstance(names["tokenizer"], open_clip.SimpleTokenizer)


def test_a_model_without_a_configuration_is_named_after_its_repository(server, tmp_path):
    server.part_size = 10**7
    model = FashionModel.from_pretrained(tiny_folder(tmp_path / "plain"), device="cpu")
    model.push_to_hub("house/my-clip", token=WRITE_TOKEN)
    repository = server.repositories["house/my-clip"]
    files = repository.commits[repository.branches["main"]]
    assert json.loads(files["fashion_retrieval.json"])["name"] == "my-clip"
    with pytest.raises(InputError, match=r"'\.\./x' is not a Hub id"):
        model.push_to_hub("../x", dry_run=True)


SCRIPT = """
import sys
from fashion_retrieval import hub
print(hub.push(sys.argv[1], "house/model").url)
"""


def test_endpoint_and_token_come_from_the_environment(saved):
    with HubServer() as running:
        running.part_size = len(WEIGHTS)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        hub_settings = {"HF_ENDPOINT": running.url, "HF_TOKEN": WRITE_TOKEN, "HF_HUB_DISABLE_XET": "1"}
        environment = kept | hub_settings | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(saved.parent / "home")}
        command = [sys.executable, "-c", SCRIPT, str(saved)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert head(running) == FILES
        assert done.stdout.strip().endswith(running.repositories[REPO].branches["main"])
