"""Settings from TOML: all faults in one line, and every recipe in the repository is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, with_config

from fashion_retrieval.errors import ConfigError
from training import distill_text, pseudo_label, train_segmenter, train_words
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import SCHEMA, from_mapping, one_of, read_settings, requires
from training.recipes.raf_clip_settings import Settings
from training.train_raf_clip import CONFIGS

RECIPES = sorted(CONFIGS.glob("raf_clip_*.toml"))


def odd(steps, info):
    if steps % 2 == 0:
        raise ValueError(f"'{info.field_name}' must be odd")
    return steps


@with_config(SCHEMA)
@dataclass(frozen=True, kw_only=True)
class Plan:
    data: str
    lr: float
    steps: Annotated[int, AfterValidator(odd)] = 1
    names: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    how: Literal["fast", "slow"] = "fast"
    off: bool = False
    word: Annotated[str, one_of(("yes", "no"))] = "no"
    volume: Annotated[float, requires("off")] = 0.0
    optimization: OptimizerConfig | None = None


def test_from_mapping_takes_valid_values_unchanged():
    data = {"data": "x", "lr": 1, "names": ["a"], "scales": {"b": 2, "c": 0.5}, "how": "slow", "off": True}
    assert from_mapping(data, Plan, "a.toml") == Plan(**data)


def test_from_mapping_names_all_faults_in_one_line():
    wrong = {"lr": "1", "steps": True, "names": ["a", 1], "scales": {"b": "2"}, "how": "fats", "of": True}
    wrong |= {"word": "maybe", "volume": 2.0, "optimization": {"lr": 0, "steps": 1}}
    with pytest.raises(ConfigError) as caught:
        from_mapping(wrong, Plan, "a.toml")
    message = str(caught.value)
    assert message.startswith("a.toml has 10 fault(s): unknown keys of (did you mean off?) (known: data, how, lr,")
    assert message.partition("word); ")[2].split("; ") == [
        "'data' is missing",
        "'lr' must be a number, got '1'",
        "'steps' must be a whole number, got True",
        "'names.1' must be a text, got 1",
        "'scales.b' must be a number, got '2'",
        "'how' must be 'fast' or 'slow', got 'fats'",
        "'word' must be one of yes, no, got 'maybe'",
        "'volume' needs 'off', set it too",
        "'optimization.lr' must be greater than 0, got 0",
    ]


def test_from_mapping_checks_combinations_beside_an_unknown_key():
    with pytest.raises(ConfigError, match=r"^a has 2 fault\(s\): unknown keys x \(known: .*\); 'steps' must be odd$"):
        from_mapping({"data": "x", "lr": 1.0, "steps": 2, "x": 1}, Plan, "a")


def test_from_mapping_reads_the_old_key_of_the_optimizer():
    with pytest.warns(DeprecationWarning, match="key 'optimisation' is now 'optimization'"):
        plan = from_mapping({"data": "x", "lr": 1.0, "optimisation": {"lr": 0.5, "steps": 3}}, Plan, "a")
    assert plan.optimization == OptimizerConfig(lr=0.5, steps=3)


def test_raf_clip_settings_name_all_their_faults(tmp_path):
    text = (CONFIGS / "raf_clip_vit_b_32.toml").read_text()
    text = text.replace('targets = "identity"', 'targets = "equal"\nbalance = 0.5\nlayer_decay = 1.5')
    text = text.replace("[[0, 224, 224]]", "[[0, 256, 224]]").replace("epochs = 150", "epochs = 150\nsteps = 3")
    text = text.replace('amp = "bf16"', 'amp = "fp8"\naccumulate = 2\nstep = 3')
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_settings(tmp_path / "a.toml", Settings)
    message = str(caught.value)
    assert "\n" not in message
    for fault in (
        "'targets' must be 'identity' or 'same_text', got 'equal'",
        "unknown keys optimization.step (did you mean steps?)",
        "'optimization.amp' must be 'off', 'bf16' or 'fp16', got 'fp8'",
        "'steps' or 'epochs' must be above 0, and not both",
        "'balance' can't be with sampling = \"epoch\"",
        "'layer_decay' must be less than or equal to 1, got 1.5",
        "'size_schedule' must not exceed 'cache_size', [224, 224], got [(0, 256, 224)]",
    ):
        assert fault in message


@pytest.mark.parametrize(("text", "fault"), [("stpes = 3", "unknown keys stpes"), ("data = ", "can't be read")])
def test_read_settings_names_the_fault_of_a_file(tmp_path, text, fault):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        read_settings(tmp_path / "a.toml", Settings)


def test_read_settings_names_a_missing_file():
    with pytest.raises(ConfigError, match=r"config missing.toml can't be read: .*No such file"):
        read_settings(Path("missing.toml"), Settings)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_their_command_in_the_header(path):
    assert read_settings(path, Settings).crops_per_step >= 2
    assert f"python -m training.train_raf_clip training/configs/{path.name}" in path.read_text().splitlines()[0]


def test_raf_clip_settings_refuse_accumulation_of_epochs(tmp_path):
    text = (CONFIGS / "raf_clip_vit_b_32.toml").read_text().replace('amp = "bf16"', 'amp = "bf16"\naccumulate = 2')
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"'accumulate' can't be with sampling = \"epoch\"; use 'micro_batch'"):
        read_settings(tmp_path / "a.toml", Settings)


@pytest.mark.parametrize(
    "module", [distill_text, pseudo_label, train_segmenter, train_words], ids=lambda module: module.__name__
)
def test_settings_of_every_recipe_name_all_their_faults(module):
    with pytest.raises(ConfigError) as caught:
        from_mapping({"data": 1, "wrong": 2, "optimization": {"lr": -1.0, "steps": 1}}, module.Settings, "a")
    faults = str(caught.value)
    assert all(f in faults for f in ("'data' must be a text, got 1", "'output' is missing", "unknown keys ", "wrong ("))
    assert ("'optimization.lr' must be greater than 0, got -1.0" in faults) == (module is not pseudo_label)
