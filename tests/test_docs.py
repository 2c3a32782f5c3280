"""README, documentation and examples are run as a reader would: block after block, offline, beside two photos."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fashion_retrieval import FashionModel
from fashion_retrieval.cli import app
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r"^(<!-- notest -->\n)?```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHECKS = "pip install -e '.[dev]' && ruff check . && ruff format --check . && mypy && pytest && mkdocs build --strict"


def blocks(page):
    return [(m[2], m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8")) if not m[1]]


def run_commands(script):
    for line in script.splitlines():
        if "fashion-retrieval " not in line:
            continue
        command = line[line.index("fashion-retrieval ") :].partition(" > ")[0]
        arguments = shlex.split(command, comments=True)[1:]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A reader's folder: a photo, a folder of photos, and the clone's examples."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLES, "examples")
    Path("photos").mkdir()
    for photo in EXAMPLES.glob("*.jpg"):
        shutil.copy(photo, "photos")
    shutil.copy(EXAMPLES / "grace_hopper.jpg", "photo.jpg")
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page, desk):
    names = {}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
        else:
            run_commands(code)


def test_most_pages_hold_code():
    assert sum(bool(blocks(page)) for page in PAGES) >= 6


def test_recognize_photo(desk, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recognize_photo.py"])
    runpy.run_path(str(EXAMPLES / "recognize_photo.py"), run_name="__main__")
    *garments, last = capsys.readouterr().out.splitlines()
    assert garments
    assert all("% of the photo" in line for line in garments)
    assert last == "card: card.png"
    assert (desk / "card.png").read_bytes().startswith(b"\x89PNG")


def test_encode_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["encode_folder.py"])
    runpy.run_path(str(EXAMPLES / "encode_folder.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["astronaut.jpg", "grace_hopper.jpg"]
    assert lines[0].endswith("astronaut.jpg")
    assert all(-1 <= float(line.split()[0]) <= 1 for line in lines)


def test_compose_and_search(desk, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compose_and_search.py"])
    runpy.run_path(str(EXAMPLES / "compose_and_search.py"), run_name="__main__")
    counts, first, change, board = capsys.readouterr().out.splitlines()
    assert counts == "2 added, 0 unchanged"
    assert first.startswith("an orange jumpsuit: astronaut.jpg ")
    assert change.startswith("astronaut.jpg, but black with a collar: grace_hopper.jpg ")
    assert board == "board: board.png"
    assert (desk / "board.png").read_bytes().startswith(b"\x89PNG")


def test_readme_names_the_checks_that_run():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(CHECKS) == 1
    pattern = re.search(r'grep -m 1 "(.+?)" README.md', (ROOT / ".ci" / "run").read_text(encoding="utf-8"))[1]
    found = subprocess.run(["grep", pattern, ROOT / "README.md"], capture_output=True, text=True, check=True)
    assert found.stdout == f"{CHECKS}\n"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_readmes_first_minute_is_right(desk):
    """What README's three pictures show, by the same calls: nobody is to meet a wrong answer first."""
    model = FashionModel.from_pretrained()
    (polo,) = model.recognize("examples/wardrobe/pink-polo.jpg").garments
    assert (polo.category.name, polo.color) == ("polo", "pink")
    said = {name: polo.attributes[name].value for name in ("texture", "sleeve", "neckline", "fabric")}
    assert said == {"texture": "solid", "sleeve": "short_sleeve", "neckline": "collar", "fabric": "cotton"}
    photos = sorted(Path("examples/wardrobe").glob("*.jpg"))
    assert len(photos) == 43
    rows = model.encode(images=photos)
    named = [photo.stem for photo in photos]

    def best(query, leave_out=""):
        return [named[i] for i in (rows @ query[0]).argsort()[::-1] if named[i] != leave_out]

    assert best(model.encode(texts="a striped shirt"))[:2] == ["striped-shirt", "striped-polo"]
    wish = best(model.compose("examples/wardrobe/red-tee.jpg", "in blue"), "red-tee")
    assert wish[0] == "blue-tee"
    assert "blue-long-sleeve-tee" in wish[:3]  # nearly level with the teal polo
