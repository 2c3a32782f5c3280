"""The list of models: what it states agrees with open_clip, and says where it was looked up."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from open_clip.factory import get_model_config
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import load_file
from typer.testing import CliRunner

from fashion_retrieval import hub
from fashion_retrieval._utils.files import asset
from fashion_retrieval.cli import app
from fashion_retrieval.errors import WeightsError
from tests.support import hub_fixtures
from tests.support.hub_server import HubServer
from tests.support.listed import ARCHITECTURES
from tests.support.paths import ROOT

server, surroundings = hub_fixtures.server, hub_fixtures.surroundings
LISTED = hub.list_models()


def test_the_list_names_the_embedded_model_first() -> None:
    assert [model.id for model in LISTED if model.embedded] == ["compact"] == [LISTED[0].id]
    assert len({model.id for model in LISTED}) == len(LISTED) == 15
    assert Counter(model.state for model in LISTED) == {
        "downloaded and tested": 1,
        "layout tested": 11,
        "refused": 3,
    }


@pytest.mark.parametrize("model", LISTED, ids=lambda model: model.id)
def test_what_an_entry_states_has_a_source(model: hub.ModelInfo) -> None:
    told = " ".join(model.sources)
    assert model.reason
    assert (model.license == "unknown") == (model.commercial == "unclear")
    assert (model.state == "refused") == bool(model.remedy)
    assert model.embedded or "http" in told
    for fact, word in ((model.parameters, "parameters"), (model.revision, "revision")):
        assert model.embedded or not fact or word in told
    assert all(figure.source.startswith("https://") and figure.protocol for figure in model.figures)
    assert all(("recall" in figure.metric or figure.value <= 1) and figure.value <= 100 for figure in model.figures)
    assert len(f"{model.id} is refused for commercial use: {model.reason}") < 250


def test_the_embedded_models_size_is_that_of_its_weights() -> None:
    sizes = sum(path.stat().st_size for path in hub.resolve("compact").glob("*.safetensors"))
    assert LISTED[0].megabytes == round(sizes / 1e6)
    state = load_file(hub.resolve("compact") / "open_clip_model.safetensors")
    trained = [value for name, value in state.items() if "running_" not in name and "num_batches" not in name]
    assert LISTED[0].parameters == sum(value.numel() for value in trained)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES.values())))
def test_sizes_are_those_of_open_clips_architecture(name: str) -> None:
    config = get_model_config(name)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    side = config["vision_cfg"]["image_size"]
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in kind(**config).parameters())
    for model in LISTED:
        if ARCHITECTURES.get(model.id) == name:
            assert (model.parameters, model.embedding_dim) == (parameters, config["embed_dim"])
            assert model.image_size == (side, side)
            assert model.megabytes is None or model.megabytes == pytest.approx(4 * parameters / 1e6, rel=0.01)


def test_refused_models_say_what_to_do_and_ask_nobody(server: HubServer) -> None:
    refused = [model for model in LISTED if model.state == "refused"]
    for model in refused:
        with pytest.raises(WeightsError) as caught:
            hub.resolve(model.id)
        assert str(caught.value) == f"{model.id} can't be loaded: {model.remedy}"
        assert "\n" not in str(caught.value)
    assert server.requests == []
    told = [model.remedy for model in refused]
    assert sum(any(other.id in remedy for other in LISTED) for remedy in told) == len(told) == 3


def test_code_of_a_repository_is_never_run_and_its_weights_stay_there(server: HubServer) -> None:
    config = {"model_type": "house_clip", "auto_map": {"AutoModel": "modeling.HouseCLIP"}}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"x" * 99, "modeling.py": b"raise"}
    server.repositories["house/model"].commit(files)
    with pytest.raises(WeightsError, match="'house_clip', in Python code, which is never run; use a repository in op"):
        hub.resolve("house/model")
    assert server.served.keys() == {"config.json"}
    server.repositories["house/model"].commit({"config.json": json.dumps(config | {"model_type": "clip"}).encode()})
    assert (hub.resolve("house/model") / "model.safetensors").is_file()


def test_the_command_lists_the_models_in_80_columns_and_as_json() -> None:
    shown = CliRunner().invoke(app, ["models", "list"]).stdout
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())
    assert shown.count("layout tested") == 11
    assert all(model.id in shown for model in LISTED)
    told = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)
    assert told[0]["id"] == "compact"
    for entry, written in zip(told, json.loads(asset("hub/models.json"))["models"], strict=True):
        assert entry | written == entry


def row(model: hub.ModelInfo) -> str:
    """A line of the table in docs/guides/models.md."""
    link = f"`{model.id}`" if model.embedded else f"[`{model.id}`](https://huggingface.co/{model.id})"
    if "Hub" in model.layout:
        link = f"[`{model.id}`](https://github.com/{model.id})"
    pixels = "x".join(map(str, reversed(model.image_size or ()))) or "?"
    size = f"{model.parameters / 1e6:.0f} M" if model.parameters else "?"
    sizes = (size, f"{model.megabytes or '?'} MB", model.embedding_dim, pixels)
    told = "; ".join(f"{figure.metric} {figure.value:g} on {figure.data}" for figure in model.figures)
    cells = (link, model.state, model.license, model.commercial, ", ".join(map(str, sizes)), told)
    return f"| {' | '.join(cells)} |"


def test_the_guide_shows_the_list_as_it_is() -> None:
    guide = (ROOT / "docs/guides/models.md").read_text(encoding="utf-8")
    shown = [line for line in guide.splitlines() if line.startswith(("| `", "| [`"))]
    assert shown == [row(model) for model in LISTED]
    assert all(figure.source in guide for model in LISTED for figure in model.figures)
    assert all(model.remedy in guide for model in LISTED if model.state == "refused")
