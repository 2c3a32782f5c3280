"""A folder is a layer: a file imports its own folder and lower layers only, and each tree stays within its numbers."""

import ast
from statistics import median

import pytest

from tests.support.paths import ROOT

SOURCES, TRAINING = ROOT / "src/fashion_retrieval", ROOT / "training"
LAYERS = {
    SOURCES: "errors < _utils < config taxonomy drawing images < results < models < checkpoint inference"
    " < hub backends < model < shards export diagnostics < gallery < __init__ < serve < cli",
    TRAINING: "engine composers < data < evaluation prepare < recipes reports export < comparison",  # < the commands
}
MOST = {SOURCES: (21, 13, 105, 24_800, 400, 150), TRAINING: (25, 7, 70, 14_500, 400, 150)}  # see `now`
USED_BY_CLI = {"__init__", "errors", "_utils", "images", "shards", "export", "serve"}
MAY_LOAD_TORCH = {"_utils", "models", "checkpoint", "backends"}


def imports(path, node=None, *, at_top=False):
    """Dotted names; those for type checkers only in __init__, which loads its names on first use."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {f"{getattr(node, 'module', '')}.{alias.name}".lstrip(".") for alias in node.names}
    typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and path.stem != "__init__"
    if typing or (at_top and isinstance(node, ast.FunctionDef)):
        return set()
    node = node or ast.parse(path.read_text(encoding="utf-8"))
    return set().union(*(imports(path, child, at_top=at_top) for child in ast.iter_child_nodes(node)))


def arrows(tree):
    """(room, other room) -> files; a room is a folder, or a file at the top."""
    found, homes = {}, {path: path.relative_to(tree).parts[0].removesuffix(".py") for path in tree.rglob("*.py")}
    for path, home in homes.items():
        for first, second, *_ in ((*name.split("."), "") for name in imports(path)):
            if first == tree.name and (other := second if second in homes.values() else "__init__") != home:
                found.setdefault((home, other), set()).add(path.name)
    return found


@pytest.mark.parametrize("tree", LAYERS, ids=lambda tree: tree.name)
def test_a_tree_has_arrows_downwards_only_and_stays_within_its_numbers(tree):
    found, floors = arrows(tree), {}
    level = {room: number for number, layer in enumerate(LAYERS[tree].split("<")) for room in layer.split()}
    assert not {arrow: files for arrow, files in found.items() if level.get(arrow[1], 99) >= level.get(arrow[0], 99)}
    for room in sorted({room for arrow in found for room in arrow}, key=lambda room: level.get(room, 99)):
        floors[room] = 1 + max((floors[other] for home, other in found if home == room), default=0)
    assert tree is TRAINING or floors.keys() == level.keys()
    sizes = [path.read_text(encoding="utf-8").count("\n") for path in tree.rglob("*.py")]
    now = (len(floors), max(floors.values()), len(found), sum(sizes), max(sizes), median(sizes))
    assert all(number <= most for number, most in zip(now, MOST[tree], strict=True)), now


def test_light_layers_load_no_networks_and_users_code_takes_public_names():
    named = {path: {name.partition(".")[0] for name in imports(path, at_top=True)} for path in SOURCES.rglob("*.py")}
    with_torch = [path for path, names in named.items() if "torch" in names]
    assert {path.relative_to(SOURCES).parts[0].removesuffix(".py") for path in with_torch} <= MAY_LOAD_TORCH
    assert {to for home, to in arrows(SOURCES) if home == "cli"} <= USED_BY_CLI
    assert not {n for path in ROOT.glob("examples/*.py") for n in imports(path) if "fashion_" in n and n.count(".") > 1}
    assert len(list(SOURCES.glob("*.py"))) <= 7
