"""Settings from TOML: all faults in one line, and every recipe in the repository is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from fashion_retrieval.errors import ConfigError
from training.engine.optimizer import Optimization
from training.engine.settings import from_mapping, read_settings
from training.recipes.raf_clip_settings import Settings
from training.train_raf_clip import CONFIGS

RECIPES = sorted(CONFIGS.glob("raf_clip_*.toml"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    data: str
    lr: float
    steps: int = 1
    names: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    how: Literal["fast", "slow"] = "fast"
    off: bool = False
    optimization: Optimization | None = None

    def faults(self):
        return ["steps must be odd"] * (self.steps % 2 == 0)


def test_what_fits_is_taken_as_it_is():
    data = {"data": "x", "lr": 1, "names": ["a"], "scales": {"b": 2, "c": 0.5}, "how": "slow", "off": True}
    assert from_mapping(data, Plan, "a.toml") == Plan(**data)


def test_all_faults_come_in_one_line():
    wrong = {"lr": "1", "steps": True, "names": ["a", 1], "scales": {"b": "2"}, "how": "fats", "of": True}
    with pytest.raises(ConfigError) as caught:
        from_mapping(wrong, Plan, "a.toml")
    assert str(caught.value).split("; ") == [
        "a.toml has unknown keys of (known: data, how, lr, names, off, optimization, scales, steps)",
        "a.toml lacks data",
        "a.toml: lr must be a number, got '1'",
        "a.toml: steps must be a whole number, got True",
        "a.toml: names must be a list in which each is a text in quotes, got ['a', 1]",
        "a.toml: scales must be a table in which each is a number, got {'b': '2'}",
        "a.toml: how: fats is unknown (known: fast, slow)",
    ]


def test_combinations_are_asked_beside_an_unknown_key():
    with pytest.raises(ConfigError, match=r"^a has unknown keys x \(known: .*\); a: steps must be odd$"):
        from_mapping({"data": "x", "lr": 1.0, "steps": 2, "x": 1}, Plan, "a")


def test_an_encoders_recipe_with_many_faults_names_them_all(tmp_path):
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
        "targets: equal is unknown (known: identity, same_text)",
        "[optimization] has unknown keys step (known: accumulate,",
        "[optimization]: amp: fp8 is unknown (known: off, bf16, fp16)",
        "[optimization]: steps or epochs must be above 0, and not both",
        'balance can\'t be with sampling = "epoch"',
        'accumulate can\'t be with sampling = "epoch"; use micro_batch',
        "layer_decay must be in (0, 1], got 1.5",
        "size_schedule must not exceed cache_size [224, 224], got [[0, 256, 224]]",
    ):
        assert fault in message


@pytest.mark.parametrize(("text", "fault"), [("stpes = 3", "unknown keys stpes"), ("data = ", "can't be read")])
def test_a_file_with_a_fault(tmp_path, text, fault):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        read_settings(tmp_path / "a.toml", Settings)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"config missing.toml can't be read: .*No such file"):
        read_settings(Path("missing.toml"), Settings)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_a_command_in_its_header(path):
    assert read_settings(path, Settings).pictures >= 2
    assert f"python -m training.train_raf_clip training/configs/{path.name}" in path.read_text().splitlines()[0]
