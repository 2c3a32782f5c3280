"""Who may import whom: a layer imports only lower layers, never a sibling."""

import ast

import pytest

from tests.support.paths import ROOT

SOURCES = ROOT / "src" / "fashion_retrieval"
LAYERS = [
    {"_collector", "_files", "errors"},
    {"_device", "_export_file", "_extras", "_malloc", "_scan", "_storage", "_where", "config", "results", "taxonomy"},
    {"_shards"},
    {"_shard_files"},
    {"_canvas", "_engine", "_held", "_hub_errors", "_hub_files", "colors"},
    {"_images", "_inference", "_pixels"},
    {"_loader"},
    {"_convert", "_engine_lance", "_engine_milvus", "_model_card", "_wishes", "draw", "hub", "models"},
    {"_runtime_onnx", "_runtime_openvino"},
    {"_changes", "_compiled", "_composition", "_gallery_input", "_graphs", "checkpoint", "_recognition"},
    {"_backends"},
    {"_board", "_gallery_add", "_gallery_search", "model"},
    {"_shard_add"},
    {"gallery"},
    {"refine"},
    {"_doctor"},
    {"__init__"},
    {"_parity", "_photo_list", "_shard_worker"},
    {"_export", "_ray"},
    {"shards"},
    {"_cli_photos", "_cli_output"},
    {"_cli_common", "_cli_shards"},
    {"_cli_recognize", "_cli_encode", "_cli_export", "_cli_gallery"},
    {"_cli_refine"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
UPWARDS = {("results", "draw")}
"""The one import against the stairs, inside a method: a result draws itself."""
TRAINING_MAY = {
    "__init__",
    "_files",
    "_inference",
    "checkpoint",
    "colors",
    "config",
    "errors",
    "hub",
    "models",
    "taxonomy",
}
HEAVY = {"torch", "torchvision", "open_clip", "segment_anything", "timm", "transformers"}


def imports(path, *, top_level=False):
    """Dotted names a file imports; without TYPE_CHECKING blocks, and only those run on import where asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes, found = list(tree.body), set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not (top_level and isinstance(node, ast.FunctionDef)):
            nodes += ast.iter_child_nodes(node)
    return found


def rooms(path, **options):
    """The modules of this package a file imports: `fashion_retrieval.hub.resolve` is hub, a public name __init__."""
    parts = [name.split(".") for name in imports(path, **options) if name.split(".")[0] == "fashion_retrieval"]
    return {part[1] if len(part) > 1 and part[1] in LEVEL else "__init__" for part in parts}


def level(path):
    return LEVEL[path.relative_to(SOURCES).parts[0].removesuffix(".py")]


MODULES = sorted(SOURCES.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCES)))
def test_a_module_imports_only_lower_layers(path):
    upwards = {(path.stem, room) for room in rooms(path) if LEVEL[room] >= level(path)}
    assert upwards <= UPWARDS
    assert not rooms(path, top_level=True) & {room for _, room in upwards}
    assert not any(name.split(".")[0] == "training" for name in imports(path))


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent == SOURCES], ids=lambda path: path.stem)
def test_light_modules_do_not_import_torch(path):
    light = level(path) <= LEVEL["colors"] or level(path) >= LEVEL["_doctor"]
    heavy = HEAVY & {name.split(".")[0] for name in imports(path, top_level=True)}
    assert not heavy or not light or path.stem == "_device"


def test_the_command_uses_public_names():
    ours = {"__init__", "errors"} | set().union(*LAYERS[LEVEL["__init__"] + 1 :])
    assert set().union(*(rooms(path) for path in SOURCES.glob("*cli*.py"))) <= ours


def test_only_models_build_networks():
    builders = {p.relative_to(SOURCES).parts[0] for p in MODULES if {"open_clip", "segment_anything"} & names(p)}
    assert builders == {"models"}


@pytest.mark.parametrize("path", sorted((ROOT / "training").rglob("*.py")), ids=lambda path: path.name)
def test_training_uses_models_and_files_only(path):
    assert rooms(path) <= TRAINING_MAY


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_use_public_names(path):
    assert rooms(path) == {"__init__"}


def names(path):
    return {name.split(".")[0] for name in imports(path)}
