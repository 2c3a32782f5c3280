"""Tools for agents, asked by the SDK's own client: what they tell, what they refuse, and how they stop."""

import asyncio
import os
import shutil
from base64 import b64encode

import pytest
from jsonschema import Draft202012Validator
from mcp import Client

from fashion_retrieval import Gallery
from fashion_retrieval.errors import InputError
from fashion_retrieval.serve import tools
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.mcp import build_mcp
from tests.support.agents import ask, cancel_a_search, listed, occupied, pictures, refused, told
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo

WARDROBE = ROOT / "examples" / "wardrobe"
IDS = ["red-tee", "blue-tee", "striped-tee", "blue-dress", "dark-jeans"]


@pytest.fixture(scope="module")
def engine(model):
    engine = Engine(model)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def gallery(model, tmp_path_factory):
    """Five recognized photos; the file of the last is gone."""
    folder = tmp_path_factory.mktemp("shop")
    files = [shutil.copy(WARDROBE / f"{id}.jpg", folder / f"{id}.jpg") for id in IDS]
    with Gallery.create(folder / "gallery", model, recognize=True, fields={"price": float}) as gallery:
        gallery.add(files, IDS, [{"price": 10.0 * place} for place in range(len(IDS))])
        (folder / f"{IDS[-1]}.jpg").unlink()
        yield gallery


@pytest.fixture(scope="module")
def server(engine, gallery):
    return build_mcp(engine, {"shop": gallery}, photos=WARDROBE)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_tools_tell_an_agent_when_to_use_them(server, mode):
    found = listed(server, mode)
    assert list(found) == ["recognize", "search", "compose", "list_galleries"]
    for tool in found.values():
        hints = tool.annotations
        assert (hints.read_only_hint, hints.idempotent_hint, hints.open_world_hint) == (True, True, False)
        assert "Use it " in tool.description
        assert 100 < len(tool.description) < 800
        for schema in (tool.input_schema, tool.output_schema):
            Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert all(field["description"] for field in tool.input_schema["properties"].values())
    required = {name: tool.input_schema.get("required", []) for name, tool in found.items()}
    assert required == {"recognize": ["photo"], "search": [], "compose": ["wishes"], "list_galleries": []}


def test_paths_are_offered_only_with_a_folder_of_photos(server, engine):
    described = [
        listed(each)["recognize"].input_schema["properties"]["photo"]["description"]
        for each in (server, build_mcp(engine, {}))
    ]
    assert ["path" in text for text in described] == [True, False]


def test_recognize_tells_what_the_library_tells(server, model):
    expected = model.recognize(WARDROBE / "red-tee.jpg").to_dict()["garments"]
    content = (WARDROBE / "red-tee.jpg").read_bytes()
    base64 = b64encode(content).decode()
    for photo in ("red-tee.jpg", "../wardrobe/red-tee.jpg", base64, f"data:image/jpeg;base64,{base64}"):
        result = ask(server, "recognize", photo=photo)
        assert told(result)["garments"] == expected
        ((label, size),) = pictures(result)
        assert (label, size[0]) == ("The photo with its garments, numbered in order.", 640)
    assert expected[0]["color"] == "red"


def test_recognize_looks_into_given_boxes(server):
    found = told(ask(server, "recognize", photo="red-tee.jpg", boxes="[[10, 10, 90, 120]]", top_k=1))["garments"]
    assert [garment["box"] for garment in found] == [[10, 10, 90, 120]]
    assert len(found[0]["categories"]) == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_search_by_text_ranks_as_the_library_does(server, gallery, model, mode):
    result = ask(server, "search", mode, text="a striped shirt", top_k=5)
    expected = gallery.search(model.encode(texts="a striped shirt"), 5)
    found = told(result)["results"]
    assert [one["id"] for one in found] == [match.id for match in expected]
    assert [one["score"] for one in found] == pytest.approx([match.score for match in expected], abs=1e-4)
    assert found[0]["fields"] == expected[0].fields
    assert found[0]["id"] == "striped-tee"
    shown = pictures(result)
    assert [label for label, _ in shown] == [
        f"{rank}. {match.id}" for rank, match in enumerate(expected, start=1) if match.id != "dark-jeans"
    ]
    assert {max(size) for _, size in shown} == {256}


def test_search_by_photo_id_filter_and_wish(server, gallery, model):
    photo = b64encode((WARDROBE / "red-tee.jpg").read_bytes()).decode()
    first = told(ask(server, "search", gallery="shop", photo=photo, top_k=1))["results"][0]
    assert (first["id"], first["score"]) == ("red-tee", pytest.approx(1, abs=1e-3))
    like = told(ask(server, "search", id="red-tee", thumbnails=False))["results"]
    assert len(like) == len(IDS) - 1
    assert "red-tee" not in [one["id"] for one in like]
    result = ask(server, "search", text="a dress", where="color = 'blue' AND price < 20", thumbnails=False)
    assert [one["id"] for one in told(result)["results"]] == ["blue-tee"]
    assert len(result.content) == 1
    assert told(ask(server, "search", text="anything but red", thumbnails=False))["understood"] == "not red"
    assert "understood" not in told(ask(server, "search", id="red-tee", thumbnails=False))
    wish = told(ask(server, "search", id="red-tee", text="in blue", top_k=1))["results"]
    expected = gallery.search(model.compose(gallery.get("red-tee"), "in blue"), 1, exclude={"red-tee"})
    assert [one["id"] for one in wish] == [match.id for match in expected] == ["blue-tee"]
    like = told(ask(server, "search", id="red-tee", top_k=2, offset=1, unique=True))["results"]
    query = gallery.embeddings(["red-tee"])[0]
    expected = gallery.search(query, 2, offset=1, unique=True, exclude={"red-tee"})
    assert [one["id"] for one in like] == [match.id for match in expected]


def test_compose_keeps_the_wishes_that_hold(server, gallery, model):
    result = ask(server, "compose", photo="red-tee.jpg", wishes=["in green", "striped", "in blue"], top_k=3)
    query = model.compose(WARDROBE / "red-tee.jpg", "striped and in blue")
    found = told(result)
    assert (found["wishes"], found["understood"]) == (["striped", "in blue"], "striped and in blue")
    assert [one["id"] for one in found["results"]] == [match.id for match in gallery.search(query, 3)]
    assert len(pictures(result)) == 3
    again = told(ask(server, "compose", id="red-tee", wishes='["in blue"]', exclude=["blue-tee"], text_weight=0.9))
    assert not {"red-tee", "blue-tee"} & {one["id"] for one in again["results"]}


def test_what_is_not_wanted_comes_last(server):
    found = told(ask(server, "compose", id="striped-tee", wishes=["not red"], thumbnails=False))
    assert found["understood"] == "not red"
    assert found["results"][-1]["id"] == "red-tee"


def test_list_galleries_tells_fields_and_values(server):
    (shop,) = told(ask(server, "list_galleries"))["galleries"]
    fields = {field["name"]: field for field in shop["fields"]}
    assert (shop["name"], shop["count"]) == ("shop", 5)
    assert list(fields)[:2] == ["category", "color"]
    assert fields["price"] == {"name": "price", "type": "float", "values": None}
    assert "dress" in fields["category"]["values"]
    assert "navy" in fields["color"]["values"] or "blue" in fields["color"]["values"]
    assert "long_sleeve" in fields["sleeve"]["values"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {}, "a query needs a text, a photo or an id"),
        ("search", {"text": ""}, "text: String should have at least 1 character"),
        ("search", {"photo": "red-tee.jpg", "id": "red-tee"}, "a query has a photo or an id, got both"),
        ("search", {"text": "a", "top_k": 51}, "top_k: Input should be less than or equal to 50"),
        ("search", {"text": "a", "limit": 3}, "limit: there is no such field"),
        ("search", {"text": "a", "gallery": "attic"}, "gallery must be the name of one, got 'attic'; there are: shop"),
        ("search", {"text": "a", "where": "size = 3"}, "where names an unknown field 'size'"),
        ("search", {"id": "nothing"}, "gallery 'shop' has no photo with id 'nothing'"),
        ("compose", {"wishes": ["red"]}, "compose needs a photo or an id, got neither"),
        ("compose", {"id": "red-tee", "wishes": []}, "wishes: List should have at least 1 item"),
        ("compose", {"id": "red-tee", "wishes": ["red"], "text_weight": 2}, "text_weight: Input should be less"),
        ("compose", {"id": "red-tee", "wishes": [" "]}, "wishes.0: String should match"),
        ("compose", {"id": "red-tee", "wishes": ["red but not red"]}, "text asks for red and for no red"),
        ("search", {"text": "striped, without stripes"}, "text asks for stripes and for no stripes"),
        ("compose", {"id": "dark-jeans", "wishes": ["red"]}, "the file of photo 'dark-jeans' can't be read; give the"),
        ("recognize", {}, "photo: this field is needed"),
        ("recognize", {"photo": "!!!"}, "a photo must be base64 of its file, which this is not"),
        ("recognize", {"photo": "data:image/png,abc"}, "a data URL must be"),
        ("recognize", {"photo": "http://127.0.0.1/a.jpg"}, "addresses are not fetched"),
        ("recognize", {"photo": "file:///etc/passwd"}, "addresses are not fetched"),
        ("recognize", {"photo": b64encode(b"hello").decode()}, "is not a photo in a known format"),
        ("recognize", {"photo": "red-tee.jpg", "boxes": [[5, 5, 1, 1]]}, "box"),
        ("delete", {}, "there is no tool 'delete'; the tools are recognize, search, compose, list_galleries"),
    ],
)
def test_errors_are_one_line(server, tool, arguments, words):
    assert words in refused(server, tool, **arguments)


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    """A folder of photos with ways out of it."""
    folder = tmp_path_factory.mktemp("outside")
    drawn_photo().save(folder / "secret.png")
    inside = folder / "photos"
    (inside / "deep").mkdir(parents=True)
    drawn_photo().save(inside / "deep" / "a.png")
    (inside / "link.png").symlink_to(inside / "deep" / "a.png")
    (inside / "out.png").symlink_to(folder / "secret.png")
    (inside / "up.d").symlink_to(folder)
    (inside / "round.png").symlink_to(inside / "round.png")
    os.mkfifo(inside / "pipe.png")
    return inside


@pytest.mark.parametrize("photo", ["deep/a.png", "link.png", "./deep/../deep/a.png"])
def test_paths_in_the_folder_are_read(engine, trap, photo):
    assert told(ask(build_mcp(engine, {}, photos=trap), "recognize", photo=photo))["width"] == 48


@pytest.mark.parametrize(
    "photo",
    [
        *("../secret.png", "deep/../../secret.png", "out.png", "up.d/secret.png", "round.png", "pipe.png", "deep/."),
        *("/etc/hostname.", "/proc/self/fd/0.", "~/.ssh/id", "missing.png", ".", "..", "a\0.png", "x" * 300 + ".png"),
        *("C:\\photos\\a.png", "../photos2.png"),
    ],
)
def test_paths_that_lead_outside_or_are_no_photo_are_refused(engine, trap, photo):
    line = refused(build_mcp(engine, {}, photos=trap), "recognize", photo=photo)
    assert line.startswith("there is no photo ")
    assert line.endswith(" of at most 64 MiB in the server's photo folder; check its path in it")
    assert str(trap) not in line


def test_large_files_are_refused_unread(engine, trap):
    with (trap / "large.png").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "at most 64 MiB" in refused(build_mcp(engine, {}, photos=trap), "recognize", photo="large.png")


def test_no_path_is_read_without_a_folder(engine):
    line = refused(build_mcp(engine, {}), "recognize", photo=str(WARDROBE.relative_to(ROOT) / "red-tee.jpg"))
    assert "reads no paths; send the file as base64, or start the server with --photos DIR" in line


def test_a_folder_of_photos_must_exist(engine, tmp_path):
    with pytest.raises(InputError, match=r"the folder of photos must exist, got '.*'; give a folder"):
        build_mcp(engine, {}, photos=tmp_path / "nothing")


def test_without_galleries_searches_say_so(engine):
    assert "there are: none; the server is started with them" in refused(build_mcp(engine, {}), "search", text="a")


def test_a_gallery_that_fails_tells_no_path(engine, model, tmp_path, caplog):
    gallery = Gallery.create(tmp_path / "gallery", model)
    gallery.close()
    line = refused(build_mcp(engine, {"shop": gallery}), "search", text="a")
    assert line == "the gallery can't be used now; the server's log says why"
    assert "this gallery is closed" in caplog.text


def test_an_error_that_nobody_expected_tells_nothing(engine, monkeypatch, caplog):
    monkeypatch.setattr(engine, "run", lambda call: {}["a secret"])
    line = refused(build_mcp(engine, {"shop": object()}), "search", text="a")
    assert line == "an error that nobody expected; the server's log says more"
    assert "a secret" in caplog.text


def test_a_full_queue_is_an_error_that_says_try_again(model, gallery):
    engine = Engine(model, queue=1)
    server = build_mcp(engine, {"shop": gallery})
    with occupied(engine):
        assert refused(server, "search", text="a") == "the queue is full, 1 are under way; ask again in a moment"
    assert len(told(ask(server, "search", text="a"))["results"]) == 5
    engine.close()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_canceled_call_leaves_the_queue(engine, server, mode):
    with occupied(engine):
        asyncio.run(cancel_a_search(Client(server, mode=mode), engine))


def test_arguments_have_the_defaults_that_they_tell():
    defaults = {"top_k": 6, "offset": 0, "unique": False, "thumbnails": True}
    assert tools.Search(text="a").model_dump(exclude_none=True) == {"text": "a"} | defaults
