"""`python -m training.export push`: the list of what would be sent, and the real thing against a local server."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion_retrieval import FashionModel
from tests.support import hub_fixtures
from tests.support.exported import WEIGHTS, refused, run, trained_encoder, write_recipe
from tests.support.hub_server import WRITE_TOKEN, HubServer
from tests.support.tiny import contents

server, surroundings = hub_fixtures.server, hub_fixtures.surroundings
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trained_encoder(tmp_path / "encoder")
    assert run("model", write_recipe(tmp_path / "e.toml")).exit_code == 0
    return tmp_path / "tiny"


def test_push_dry_run_asks_nobody_and_lists_the_files(server: HubServer, folder: Path) -> None:
    done = run("push", folder, "house/tiny", "--dry-run", "--private", "--revision", "v1", "--message", "First")
    assert done.exit_code == 0, done.output
    assert server.requests == []
    first, *files, last = done.stdout.splitlines()
    assert first == f"{server.url}/house/tiny, branch v1, private if new: 'First' (not sent)"
    assert [line.split()[-1] for line in files] == [
        "README.md",
        "fashion_retrieval.json",
        "open_clip_config.json",
        WEIGHTS,
    ]
    assert files[-1].split()[1].replace(",", "") == str((folder / WEIGHTS).stat().st_size)
    assert last.startswith("4 files, ")


def test_push_uploads_a_folder_that_loads_again(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.part_size = 10**7
    assert "(HTTP 401, no token)" in refused(run("push", folder, "house/tiny"))
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    done = run("push", folder, "house/tiny")
    assert done.exit_code == 0, done.output
    repository = server.repositories["house/tiny"]
    oid = repository.branches["main"]
    assert f"(sent: {server.url}/house/tiny/commit/{oid})" in done.stdout
    sent, kept = repository.commits[oid], contents(folder)
    assert {name for name in kept if kept[name] != sent[name]} == {"README.md"}
    assert b'from_pretrained("house/tiny")' in sent["README.md"]
    again = FashionModel.from_pretrained("house/tiny", revision=oid, device="cpu")
    assert again.fingerprint == FashionModel.from_pretrained(folder, device="cpu").fingerprint


def test_push_of_no_model_or_id_says_one_line(server: HubServer, folder: Path, tmp_path: Path) -> None:
    assert "no model" in refused(run("push", tmp_path / "nowhere", "house/tiny"))
    assert "'tiny' is not a Hub id" in refused(run("push", folder, "tiny"))
    assert server.requests == []
