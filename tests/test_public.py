"""What a user may rely on, and what importing it costs."""

import pkgutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

import fashion_retrieval
from fashion_retrieval.cli import app
from fashion_retrieval.config import ModelConfig
from tests.support.paths import ROOT

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
    "to_coco",
    "to_yolo",
]
MODULES = {
    "checkpoint": "Bundle load save",
    "cli": "app main",
    "config": "ComposerConfig ModelConfig ProbeConfig SegmenterConfig",
    "errors": "ConfigError FashionRetrievalError GalleryError HubError ImageError InputError MissingExtraError "
    "ModelNotFoundError ShardError TaxonomyError UnsupportedError WeightsError",
    "gallery": "AddReport Gallery GalleryInfo Refinement Turn",
    "hub": "EMBEDDED ModelInfo PublishedFigure Upload check_repo_id list_models push resolve",
    "model": "FashionModel",
    "models.composer": "Composer",
    "models.encoder": "Encoder",
    "models.sam": "SegmentAnythingSegmenter load_sam",
    "models.segmenter": "GarmentSegmenter",
    "results": "Attribute AttributeFit Box Color Comparison Encoded Evaluation Explanation Failure FitScores Garment "
    "Mask Match Recognition Reference Region Scalar Score Segmenter Status to_coco to_yolo",
    "shards": "RetrievalEvaluation ShardReport encode_shards evaluate_retrieval",
    "taxonomy": "Group SHIPPED Taxonomy Value",
}
COMMON = "--model --device --dtype --backend --max-pixels"
OPTIONS = {
    "recognize": f"{COMMON} --taxonomy --box --no-segmenter --top-k --format --json --csv --masks --out --save "
    "--batch-size --on-error",
    "encode": f"{COMMON} --out --texts --batch-size --on-error --engine --workers --shard-size --format "
    "--dimensions --precision",
    "export": "--to --out --precision --calibrate --labeled --revision --json",
    "index": f"{COMMON} --revision --recognize --no-recognize --taxonomy --prefix --batch-size --on-error "
    "--dimensions --precision",
    "migrate": f"{COMMON} --revision --root --dimensions --batch-size --on-error",
    "duplicates": "--model --json",
    "search": f"{COMMON} --revision --text --image --id --where --top-k --exclude --text-weight --json --save "
    "--explain --offset --min-score --group-by --unique",
    "refine": f"{COMMON} --revision --image --id --where --top-k",
    "fit": f"{COMMON} --output --taxonomy --no-segmenter --batch-size --on-error --json",
    "evaluate": f"{COMMON} --labels --group --taxonomy --no-segmenter --save --worst --output --batch-size --on-error "
    "--json --queries --relevant --truth --text-weight",
    "mcp": "--transport --host --port --model --backend --device --photos --api-key-file --max-pixels --queue",
    "serve": "--host --port --model --backend --device --dtype --api-key-file --allow-origin --max-body --max-pixels "
    "--queue --timeout --writable --read-only --uploads --page --no-page --demo",
    "doctor": "--device --dtype --backends --json",
    "models list": "--json",
    "models convert": "",
    "models download": "--revision --require-commercial",
    "models info": "--revision --json",
}
HEAVY = "{'torch', 'open_clip', 'segment_anything', 'torchvision', 'transformers', 'huggingface_hub', 'numpy'}"


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_public_names_are_listed():
    assert fashion_retrieval.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(fashion_retrieval, name)
    assert value.__doc__
    assert name in dir(fashion_retrieval)
    assert getattr(fashion_retrieval, name) is value


def test_no_submodule_hides_a_public_name():
    assert not set(NAMES) & {module.name for module in pkgutil.iter_modules(fashion_retrieval.__path__)}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_module_has_its_names(module):
    found = import_module(f"fashion_retrieval.{module}")
    assert [name for name in MODULES[module].split() if not hasattr(found, name)] == []


def test_version_has_one_source():
    assert fashion_retrieval.__version__ == version("fashion-retrieval")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fashion_retrieval' has no attribute 'Garmet'"):
        fashion_retrieval.Garmet  # noqa: B018


def test_the_old_module_refine_works_and_warns():
    import fashion_retrieval.refine as old

    from fashion_retrieval.gallery import Turn

    with pytest.warns(DeprecationWarning, match="refine.Turn is now fashion_retrieval.gallery.Turn; the old name goes"):
        assert old.Turn is Turn
    with pytest.raises(AttributeError, match="no attribute 'Turns'"):
        old.Turns  # noqa: B018


def test_old_attributes_work_and_warn():
    with pytest.warns(DeprecationWarning, match="ModelInfo.licence is now license; the old name goes in release 0.3"):
        assert fashion_retrieval.list_models()[0].licence == "Apache-2.0"
    with pytest.warns(DeprecationWarning, match="ModelConfig.licence is now license"):
        assert ModelConfig(name="mine", license="MIT").licence == "MIT"


def test_every_command_has_its_options():
    commands = typer.main.get_command(app).commands
    commands |= {f"models {name}": command for name, command in commands.pop("models").commands.items()}
    found = {
        name: {option for item in command.params for option in (*item.opts, *item.secondary_opts) if option[0] == "-"}
        for name, command in commands.items()
    }
    assert found == {name: set(options.split()) for name, options in OPTIONS.items()}


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("index", "--recognise", "--recognize"),
        ("index", "--no-recognise", "--no-recognize"),
        ("export", "--labelled=photos", "--labeled"),
    ],
)
def test_an_old_option_works_with_a_warning(command, old, new):
    done = CliRunner().invoke(app, [command, old, "--help"])
    name = old.split("=")[0]
    assert (done.exit_code, done.stderr) == (0, f"warning: {name} is now {new}; the old name goes in release 0.3\n")
    assert name not in done.stdout


def test_import_is_light():
    done = run(f"import sys, fashion_retrieval; print(sorted({HEAVY} & sys.modules.keys()))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_open_clip_comes_with_the_first_model():
    heavy = "{'open_clip', 'timm', 'torchvision', 'transformers'}"
    done = run(
        f"import sys, fashion_retrieval as f; f.FashionModel, f.Gallery; print(sorted({heavy} & sys.modules.keys()))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_embedded_model_needs_no_open_clip():
    heavy = "{'open_clip', 'timm', 'torchvision', 'transformers', 'torch._dynamo'}"
    code = f"""
import sys, torch, fashion_retrieval as f
model = f.FashionModel.from_pretrained(device="cpu", backend="torch")
found = model.recognize(sys.argv[1])
model.encode(texts="a word that no prompt has")
model.compose(sys.argv[1], "in red")
print(len(found.garments) > 0, sorted({heavy} & sys.modules.keys()))
"""
    done = run(code, str(ROOT / "examples/astronaut.jpg"))
    assert (done.stdout, done.stderr) == ("True []\n", "")


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
