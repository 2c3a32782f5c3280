"""docs/llms.txt leads agents to every page; mkdocs puts it at the root of the site as it is."""

import re

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<target>[^)]+)\): (?P<about>\S.*\.)$", re.MULTILINE)


def listed():
    """Title by page; a link is the address of a page below the site's root."""
    links = LINK.finditer((DOCS / "llms.txt").read_text(encoding="utf-8"))
    return {f"{link['target'].removesuffix('/')}.md".replace("..md", "index.md"): link["title"] for link in links}


def test_it_has_the_parts_of_the_convention():
    lines = (DOCS / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# fashion-retrieval"
    assert [line for line in lines if line.startswith("# ")] == lines[:1]
    assert lines[2].startswith("> A Python library")
    entries = [line for line in lines if line.startswith("- ")]
    assert len(entries) == len(listed())


def test_it_names_every_page_as_the_navigation_does():
    navigation = re.findall(r"^ +- ([^:\n]+): (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert {page: title for title, page in navigation} == listed()
    assert {f"guides/{guide.name}" for guide in DOCS.glob("guides/*.md")} <= listed().keys()


def test_its_links_lead_somewhere():
    assert not [page for page in listed() if not (DOCS / page).is_file()]
