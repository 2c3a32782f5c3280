"""The package leaves its host alone: process-wide settings are the same before, during and after its calls."""

import subprocess
import sys

import pytest

from fashion_retrieval import checkpoint
from fashion_retrieval.backends.attach import describe
from tests.support.exported_models import model_folder, write_graphs
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo

PROGRAM = """
import gc, locale, logging, os, signal, sys, threading, warnings
from pathlib import Path

import onnxruntime, open_clip, openvino, torch, torchvision  # what their own imports change is not ours
from PIL import Image

LIBRARIES = ["", "PIL", "fashion_retrieval", "onnxruntime", "openvino", "nncf", "torch", "torch.onnx", "transformers"]


def settings():
    return {
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.get_debug(), list(gc.callbacks)),
        "pillow": Image.MAX_IMAGE_PIXELS,
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (logging.root.manager.disable, list(logging.root.handlers)),
        "levels": [logging.getLogger(name).level for name in LIBRARIES],
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "hooks": (sys.excepthook, threading.excepthook, sys.getrecursionlimit()),
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
    }


def compare():
    for name, value in settings().items():
        if value != before[name]:
            changed.setdefault(name, (before[name], value))


def watch():
    global samples
    while not stop.wait(0.002):
        compare()
        samples += 1


def export():
    from fashion_retrieval.export.export import export_model

    export_model(source, out, backend="openvino", precision="fp32", model_id="tiny")
    use(out, "openvino")


def use(out, backend):
    import fashion_retrieval

    for chosen in ("torch", backend):
        model = fashion_retrieval.FashionModel.from_pretrained(out, device="cpu", backend=chosen)
        model.recognize(photo, segmenter=None)
        list(model.recognize_many([photo, photo], segmenter=None, progress=True))
        model.encode(images=[photo, photo])
        model.encode(texts=["a red dress"])
        model.compose(photo, "in red")
    print("used", model.backend)


source, photo, out = map(Path, sys.argv[1:])
changed, samples, stop, before = {}, 0, threading.Event(), settings()
threads = [threading.Thread(target=watch), threading.Thread(target=export)]
for thread in threads:
    thread.start()
use(source, "onnx")  # while the other thread exports
threads[1].join()
stop.set()
threads[0].join()
compare()
print("sampled", samples > 100)
for name, (old, new) in changed.items():
    print(f"changed {name}: {old} -> {new}")
"""


def test_calls_from_two_threads_change_no_setting_of_the_process(tmp_path):
    source, photo = model_folder(tmp_path / "model"), tmp_path / "photo.png"
    drawn_photo().save(photo)
    (source / "onnx").mkdir()
    write_graphs(source, "onnx", source / "onnx")  # the other backend is exported in the child
    describe(checkpoint.load(source), source / "onnx", backend="onnx", precision="fp32").write(source / "onnx")
    command = [sys.executable, "-c", PROGRAM, str(source), str(photo), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["sampled True", "used onnx fp32", "used openvino fp32"]


@pytest.mark.parametrize(
    "word", ["ctypes", "mallopt", "MALLOC_", "redirect_stdout(", "redirect_stderr(", "basicConfig"]
)
def test_source_does_not_reach_for_the_process(word):
    sources = sorted((ROOT / "src").rglob("*.py"))
    assert [path.name for path in sources if word in path.read_text(encoding="utf-8")] == []
