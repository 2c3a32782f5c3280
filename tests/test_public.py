"""What a user may rely on, and what importing it costs."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import fashion_retrieval

NAMES = [
    "Failure",
    "FashionModel",
    "FashionRetrievalError",
    "Gallery",
    "Garment",
    "Match",
    "Recognition",
    "Reference",
    "Refinement",
    "SegmentAnythingSegmenter",
    "Taxonomy",
    "__version__",
    "doctor",
    "download_model",
    "list_models",
]
HEAVY = "{'torch', 'open_clip', 'segment_anything', 'torchvision', 'transformers', 'huggingface_hub', 'numpy'}"


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_public_names():
    assert fashion_retrieval.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(fashion_retrieval, name)
    assert value.__doc__
    assert name in dir(fashion_retrieval)
    assert getattr(fashion_retrieval, name) is value


def test_version_has_one_source():
    assert fashion_retrieval.__version__ == version("fashion-retrieval")


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'fashion_retrieval' has no attribute 'Garmet'"):
        fashion_retrieval.Garmet  # noqa: B018


def test_import_is_light():
    done = run(f"import sys, fashion_retrieval; print(sorted({HEAVY} & sys.modules.keys()))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_open_clip_comes_with_the_first_model():
    heavy = "{'open_clip', 'timm', 'torchvision', 'transformers'}"
    done = run(
        f"import sys, fashion_retrieval as f; f.FashionModel, f.Gallery; print(sorted({heavy} & sys.modules.keys()))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("command", ["--help", "recognize --help", "encode --help", "models --help", "doctor --help"])
def test_help_is_light(command):
    code = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", sorted({HEAVY} & sys.modules.keys())))
from fashion_retrieval.cli import main
main()
"""
    done = run(code, *command.split())
    assert done.returncode == 0
    assert "Usage: fashion-retrieval" in done.stdout
    assert done.stdout.endswith("LOADED []\n")
