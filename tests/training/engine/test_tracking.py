"""Where figures go: the log, TensorBoard, and Weights & Biases through a stand-in of its documented calls."""

import json
import sys
from types import ModuleType

import pytest

from fashion_retrieval.errors import MissingExtraError
from training.engine.tracking import track


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_resumed_log_has_each_step_once_and_no_torn_line(tmp_path):
    with track(tmp_path, [], 0, {}) as write:
        for step in range(4):
            write(step, {"loss": 1.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with track(tmp_path, [], 2, {}) as write:
        write(2, {"loss": 0.5})
    assert steps_of(tmp_path) == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_tensorboard_gets_every_figure(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, end in ((0, 3), (2, 4)):
        with track(tmp_path, ["tensorboard"], start, {"lr": 1}) as write:
            for step in range(start, end):
                write(step, {"loss": 1.0 / (step + 1), "lr": 0.1})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr"}
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(
        {0: 1.0, 1: 1 / 2, 2: 1 / 3, 3: 1 / 4}
    )
    assert steps_of(tmp_path) == [0, 1, 2, 3]


class Run:
    """What `wandb.init` returns: a context manager with `log(data, step=…)`."""

    def __init__(self, **settings):
        self.settings, self.logged, self.open = settings, [], True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.open = False

    def log(self, data, step=None):
        self.logged.append((step, data))


def test_wandb_goes_on_with_the_run_of_the_folder(tmp_path, monkeypatch):
    runs = []
    wandb = ModuleType("wandb")
    wandb.init = lambda **settings: runs.append(Run(**settings)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    folder = tmp_path / "raf_clip"
    folder.mkdir()
    for start in (0, 1):
        with track(folder, ["wandb"], start, {"alpha": 0.5}) as write:
            write(start, {"loss": 2.0})
            assert runs[-1].open
    first, second = (run.settings for run in runs)
    assert first == second
    assert first["id"].startswith("raf_clip-")
    assert {key: first[key] for key in ("project", "name", "resume", "config")} == {
        "project": "fashion-retrieval", "name": "raf_clip", "resume": "allow", "config": {"alpha": 0.5}
    }  # fmt: skip
    assert [run.logged for run in runs] == [[(0, {"loss": 2.0})], [(1, {"loss": 2.0})]]
    assert not any(run.open for run in runs)


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_package_that_is_not_there_is_named_with_its_remedy(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(MissingExtraError, match=rf"{module} is needed .*pip install 'fashion-retrieval\[tracking\]'"),
        track(tmp_path, [name], 0, {}),
    ):
        pass
    assert not (tmp_path / "log.jsonl").exists()
