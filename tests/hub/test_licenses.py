"""`require_commercial`: what licenses say, where it is read, and that nothing large is downloaded before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fashion_retrieval import FashionModel, hub
from fashion_retrieval.cli import app
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import InputError, UnsupportedError
from tests.support import hub_fixtures
from tests.support.hub_fixtures import OPEN_CLIP, REPO
from tests.support.hub_server import HubServer
from tests.support.tiny import saved_folder, tiny_folder

server, surroundings = hub_fixtures.server, hub_fixtures.surroundings
GPL = "GNU GENERAL PUBLIC LICENSE\n" + "x" * 400 + "This alternative is allowed only occasionally and noncommercially."


def card(text: str) -> dict[str, str]:
    return {"README.md": f"---\n{text}\n---\n# A model\n"}


ALLOWED = [
    card("license: mit"),
    card("license: Apache-2.0"),
    card("license: gpl-3.0"),
    card("license: [mit, apache-2.0]"),
    card("license: other") | {"LICENSE": "MIT License\n\nCopyright"},
    card("license: gpl-2.0") | {"LICENSE": "allowed only for noncommercial distribution and only if you"},
    {"license.md": "# The MIT License (MIT)\n\nCopyright"},
    {"LICENSE.txt": "                Apache License\nVersion 2.0, January 2004"},
    {"LICENCE": "Attribution 4.0 International\n"},
    card("license: gpl-3.0") | {"LICENSE": GPL},
    card("license: mit") | {"LICENSE": "see the README"},
]
REFUSED = [
    ({}, "neither README.md nor LICENSE names a license: that does not clearly allow it"),
    (card("tags: [clip]"), "neither README.md nor LICENSE"),
    (card("license: cc-by-nc-4.0"), "license 'cc-by-nc-4.0' of its README.md forbids it"),
    (card("license: [mit, cc-by-nc-sa-4.0]"), "'cc-by-nc-sa-4.0' of its README.md forbids it"),
    (card("license: other\nlicense_name: apple-amlr"), "'apple-amlr' of its README.md forbids it"),
    (card("license: fair-noncommercial-research-license"), "of its README.md forbids it"),
    (card("license: other"), "license 'other' of its README.md: that does not clearly allow it"),
    (card("license: [mit, other]"), "that does not clearly allow it"),
    (card("license: other\nlicense_name: modified-mit") | {"LICENSE": "MIT License"}, "'other', 'modified-mit' of its"),
    (card("license: openrail") | {"LICENSE": "MIT License"}, "license 'openrail' of its README.md: that does not"),
    ({"LICENSE": "Modified MIT License\n\nCopyright"}, "its LICENSE: that does not clearly allow it"),
    (card("license: mit") | {"LICENSE": "for non commercial use"}, "its LICENSE forbids it"),
    (
        card("license: mit") | {"license.txt": "Attribution-NonCommercial 4.0 International"},
        "its license.txt forbids it",
    ),
    (card("license: openrail"), "license 'openrail' of its README.md: that does not clearly allow it"),
    (card("license: 3"), "neither README.md nor LICENSE"),
    (card("license: [unclosed"), "neither README.md nor LICENSE"),
    ({"README.md": "---\n- a list\n---\n"}, "neither README.md nor LICENSE"),
    ({"README.md": "\ud800"}, "neither README.md nor LICENSE"),
    ({"LICENSE": "ask us"}, "its LICENSE: that does not clearly allow it"),
    (card("license: mit") | {"LICENSE": "For non-commercial use only"}, "its LICENSE forbids it"),
    ({"LICENSE.md": "MIT License\n\nwith the Commons Clause"}, "its LICENSE.md forbids it"),
    ({"LICENSE": "Apple: exclusively for Research Purposes"}, "its LICENSE forbids it"),
]


def written(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    return folder


@pytest.mark.parametrize("files", ALLOWED)
def test_a_license_that_allows_commercial_use_passes(tmp_path: Path, files: dict[str, str]) -> None:
    folder = written(tmp_path / "model", files)
    assert hub.resolve(folder, require_commercial=True) == folder


@pytest.mark.parametrize(("files", "reason"), REFUSED)
def test_a_license_that_does_not_is_refused_in_a_line(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    folder = written(tmp_path / "model", files)
    with pytest.raises(UnsupportedError) as caught:
        hub.resolve(folder, require_commercial=True)
    message = str(caught.value)
    assert message.startswith(f"{folder} is refused for commercial use: ")
    assert reason in message
    assert message.endswith("read its license and load it without require_commercial")
    assert "\n" not in message
    assert hub.resolve(folder) == folder


def test_the_license_of_our_own_configuration_counts(tmp_path: Path) -> None:
    folder = saved_folder(tmp_path / "model", tiny_folder(tmp_path / "tiny"))
    with pytest.raises(UnsupportedError, match=r"neither README\.md nor LICENSE names a license"):
        FashionModel.from_pretrained(folder, require_commercial=True)
    path = folder / "fashion_retrieval.json"
    for license_, passes in (("MIT", True), ("CC-BY-NC-4.0", False)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"license": license_}))
        assert ModelConfig.read(folder).license == license_  # type: ignore[union-attr]
        if passes:
            assert FashionModel.from_pretrained(folder, require_commercial=True).embedding_dim == 16
        else:
            with pytest.raises(UnsupportedError, match=r"license 'CC-BY-NC-4\.0' of its configuration forbids it"):
                FashionModel.from_pretrained(folder, require_commercial=True)


def test_the_list_answers_for_its_models_and_asks_nobody(server: HubServer) -> None:
    for model in hub.list_models():
        if model.commercial != "yes":
            with pytest.raises(UnsupportedError) as caught:
                FashionModel.from_pretrained(model.id, require_commercial=True)
            assert model.reason in str(caught.value)
            assert "\n" not in str(caught.value)
    assert server.requests == []
    assert hub.resolve("compact", require_commercial=True) == hub.resolve("compact")


def test_a_listed_model_whose_files_forbid_it_is_refused(server: HubServer) -> None:
    listed = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    server.repositories[listed].commit(OPEN_CLIP | {"README.md": b"no license is named"})
    assert hub.resolve(listed, require_commercial=True).is_dir()
    server.repositories[listed].commit({"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    with pytest.raises(UnsupportedError, match=r"license 'cc-by-nc-4\.0' of its README\.md forbids it"):
        hub.resolve(listed, require_commercial=True)


def test_a_folder_that_is_named_like_a_listed_model_is_judged_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "patrickjohncyh" / "fashion-clip"
    folder.mkdir(parents=True)
    with pytest.raises(UnsupportedError, match=r"neither README\.md nor LICENSE"):
        hub.resolve("patrickjohncyh/fashion-clip", require_commercial=True)  # the working folder is tmp_path


def test_the_weights_of_a_refused_repository_are_not_downloaded(server: HubServer) -> None:
    server.repositories[REPO].commit(OPEN_CLIP | {"LICENSE": b"For non-commercial use only"})
    with pytest.raises(UnsupportedError, match="house/model is refused for commercial use: its LICENSE forbids it"):
        hub.resolve(REPO, require_commercial=True)
    assert "open_clip_model.safetensors" not in server.served
    assert server.served["LICENSE"] == 27
    hub.resolve(REPO)
    with pytest.raises(UnsupportedError, match="its LICENSE forbids it"):
        hub.resolve(REPO, require_commercial=True, local_files_only=True)
    server.stop()
    with pytest.raises(UnsupportedError, match="its LICENSE forbids it"):
        hub.resolve(REPO, require_commercial=True)


def test_the_command_downloads_what_may_be_used_commercially(server: HubServer) -> None:
    oid = server.repositories[REPO].commit(OPEN_CLIP | {"README.md": b"---\nlicense: mit\n---\n"})
    done = CliRunner().invoke(app, ["models", "download", REPO, "--require-commercial"])
    assert done.exit_code == 0
    assert done.stdout.strip().endswith(oid)
    done = CliRunner().invoke(app, ["models", "download", "timm/MobileCLIP2-S2-OpenCLIP", "--require-commercial"])
    assert done.exit_code == 1
    assert "is refused for commercial use: Apple's research license" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("value", [None, 1, "yes", []])
def test_require_commercial_is_true_or_false(value: object) -> None:
    with pytest.raises(InputError, match=r"^require_commercial must be True or False, got "):
        FashionModel.from_pretrained("compact", require_commercial=value)  # type: ignore[arg-type]
