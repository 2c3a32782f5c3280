"""The page's actions, filters and HTML, with a tiny model and drawn photos; and how it is mounted."""

import asyncio
import base64
import re
import threading
import time
from importlib.resources import files

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fashion_retrieval.errors import GalleryError, InputError, MissingExtraError, UnsupportedError
from fashion_retrieval.gallery.filters import parse_where
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.images.regions import box_mask
from fashion_retrieval.model import FashionModel
from fashion_retrieval.results import Region
from fashion_retrieval.serve import demo, mount
from fashion_retrieval.serve.engine import BusyError, Engine
from tests.support.served_page import served
from tests.support.tiny import drawn_photo, tiny_folder

gr = pytest.importorskip("gradio", reason="NO GRADIO, so the page is not tested: pip install 'fashion-retrieval[page]'")
from fashion_retrieval.serve.page import build_page, markup, parts  # noqa: E402
from fashion_retrieval.serve.page.search import SearchPart  # noqa: E402
from fashion_retrieval.serve.page.visit import Visit  # noqa: E402

FIELDS = {"price": float, "stock": int, "sale": bool, "brand": str}


class Middle:
    """Finds one garment, in the middle of each photo."""

    def segment(self, image, boxes=None):
        width, height = image.size
        box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
        return [Region(box, box_mask(box, height, width), 0.9, "dress")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = FashionModel.from_pretrained(tiny_folder(tmp_path_factory.mktemp("model")), device="cpu", dtype="float32")
    made._segmenter = Middle()
    return made


@pytest.fixture(scope="module")
def engine(model):
    made = Engine(model, queue=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def galleries(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    found = {}
    for name, recognize in (("shop", True), ("plain", False)):
        gallery = Gallery.create(folder / name, model, recognize=recognize, fields=FIELDS)
        photos = []
        for seed in range(5):
            photos.append(folder / f"{name}{seed}.png")
            drawn_photo(seed=seed).save(photos[-1])
        metadata = [{"price": 10.0 * i, "stock": i, "sale": i % 2 == 0, "brand": f"50% o'{i}"} for i in range(5)]
        gallery.add(photos, [f"{name}-{i}" for i in range(5)], metadata)
        found[name] = gallery
    yield found
    for gallery in found.values():
        gallery.close()


@pytest.fixture
def photo(tmp_path):
    drawn_photo((300, 400), seed=7).save(tmp_path / "photo.png")
    return (tmp_path / "photo.png").read_bytes()


@pytest.fixture
def visit(engine, galleries):
    return Visit(engine, galleries, "shop")


def ids(visit):
    return [match.id for match in visit.turns[-1].matches]


def test_before_the_first_turn_a_press_is_a_suggested_wish_then_a_photo(engine, galleries):
    visit = Visit(engine, galleries, "shop")
    shown = markup.results_part(None)
    assert all(f'data-select="{wish}"' in shown for wish in markup.SUGGESTIONS)
    visit.press(markup.SUGGESTIONS[0])
    assert visit.turns[-1].wishes == (markup.SUGGESTIONS[0],)
    with pytest.raises(UnsupportedError):  # a photo with the wish that holds, for which the tiny model has no composer
        visit.press(visit.turns[-1].matches[1].id)
    with pytest.raises(InputError, match="no longer here"):
        visit.press("a red jacket")


def test_a_picked_garment_is_the_query_and_each_turn_can_be_taken_back(visit, photo):
    visit.look(photo, "photo.png")
    (garment,) = visit.photo.recognition.garments
    visit.pick(0)
    assert (len(visit.turns), visit.picked, len(ids(visit))) == (1, 0, 5)
    assert visit.turns[0].reference is visit.photo.crops[0]
    first = ids(visit)
    visit.like(first[2])
    assert (len(visit.turns), len(ids(visit))) == (2, 4)  # the reference itself is not a result
    assert visit.turns[1].reference.id == first[2]
    visit.back(1)
    assert ids(visit) == first
    visit.back(0)
    assert (visit.turns, visit.picked) == ((), None)
    assert visit.photo.recognition.garments == (garment,)


def test_words_alone_search_and_a_second_wish_joins_the_first(visit):
    visit.wish("a red  dress")
    visit.wish("long sleeves")
    assert [turn.wishes for turn in visit.turns] == [("a red dress",), ("a red dress", "long sleeves")]


def test_what_was_understood_is_told_where_it_is_not_the_wish(visit):
    visit.wish("a red dress")
    assert "understood" not in markup.results_part(visit)
    visit.wish("anything but blue")
    assert "understood: a red dress, not blue · " in markup.results_part(visit)


def test_a_filter_asks_the_last_turn_again_and_going_back_keeps_it(visit):
    visit.wish("a dress")
    visit.wish("long sleeves")
    visit.where = "price >= 30"
    visit.again()
    assert len(visit.turns) == 2
    assert visit.turns[-1].wishes == ("a dress", "long sleeves")
    assert sorted(ids(visit)) == ["shop-3", "shop-4"]
    visit.back(1)
    assert (len(visit.turns), sorted(ids(visit))) == (1, ["shop-3", "shop-4"])


def test_a_turn_that_fails_leaves_the_search_as_it_was(visit):
    visit.wish("a dress")
    before = visit.turns
    visit.where = "size > 3"
    with pytest.raises(InputError, match="unknown field 'size'"):
        visit.again()
    assert visit.turns == before


def test_another_gallery_starts_again_with_the_picked_garment(visit, photo):
    visit.look(photo, "photo.png")
    visit.pick(0)
    visit.choose("plain")
    assert (visit.picked, len(visit.turns), ids(visit)[0][:5]) == (0, 1, "plain")
    visit.back(0)
    visit.choose("shop")
    assert visit.turns == ()


def test_another_gallery_is_asked_for_the_same_wishes(visit):
    visit.wish("a red dress")
    visit.wish("long sleeves")
    visit.choose("plain")
    assert [turn.wishes for turn in visit.turns] == [("a red dress",), ("a red dress", "long sleeves")]
    assert all(name.startswith("plain") for name in ids(visit))
    assert "<span></span>" not in markup.trail_part(visit)


@pytest.mark.parametrize(
    "act",
    [
        lambda visit: visit.pick(0),
        lambda visit: visit.back(1),
        lambda visit: visit.like("/etc/passwd"),
        lambda visit: visit.wish("  "),
        lambda visit: (visit.choose("nowhere"), visit.wish("a dress")),
        lambda visit: visit.look(b"no photo", "notes.txt"),
    ],
)
def test_what_can_not_be_done_is_one_line(visit, act):
    with pytest.raises(InputError) as caught:
        act(visit)
    assert len(str(caught.value).splitlines()) == 1
    assert visit.turns == ()


def test_a_photo_that_is_gone_is_told_by_its_id_and_not_its_path(visit, photo, galleries, tmp_path):
    gone = tmp_path / "secret.png"
    gone.write_bytes(photo)
    galleries["shop"].add([gone], ["gone"])
    visit.look(photo, "photo.png")
    visit.pick(0)
    assert "gone" in ids(visit)
    gone.unlink()
    with pytest.raises(InputError, match="the photo of 'gone' can't be read any more") as caught:
        visit.like("gone")
    assert "secret" not in str(caught.value)
    assert "photo not found" in markup.results_part(visit)
    galleries["shop"].delete(["gone"])


def test_a_full_queue_is_busy_and_the_page_says_so(engine, galleries, photo):
    from threading import Event

    release = Event()
    waiting = [engine.run(lambda: release.wait(10)) for _ in range(engine.queue)]
    try:
        with pytest.raises(BusyError):
            Visit(engine, galleries, "shop").look(photo, "photo.png")
        shown, _ = ask(built(engine, galleries), "upload", sent_photo(photo))
        assert "busy, try again" in next(iter(shown.values()))
    finally:
        release.set()
        for future in waiting:
            future.result(10)


def test_the_photo_part_says_what_is_there_and_what_is_not_visible(visit, photo):
    visit.look(photo, "photo.png")
    html = markup.photo_part(visit.photo, searched=True)
    (garment,) = visit.photo.recognition.garments
    assert f"<i>{garment.category.probability:.0%}</i>" in html
    assert f'alt="Your photo: {garment.title.capitalize()}"' in html
    assert html.count("<path ") == 1
    assert 'data-select="0"' in html
    for attribute in garment.attributes.values():
        words = attribute.group.replace("_", " ")
        assert (words in html) == (attribute.status != "not_applicable")
    hidden = [a.group for a in garment.attributes.values() if a.status == "not_visible"]
    assert ("not visible: " in html) == bool(hidden)
    assert "data-select" not in markup.photo_part(visit.photo, searched=False)


def test_results_have_a_text_for_each_picture_and_show_the_gallery_s_own_fields(visit, photo):
    visit.look(photo, "photo.png")
    visit.pick(0)
    html = markup.results_part(visit)
    assert html.count("<img ") == html.count(" alt=") == 5
    assert 'alt=""' not in html
    assert "price 30.0 · stock 3 · sale False · brand 50% o&#x27;3" in html
    assert 'aria-label="More like shop-3"' in html
    assert 'data-picked="0"' in html
    trail = markup.trail_part(visit)
    assert trail.count("<li>") == trail.count('aria-current="step"') == trail.count("<img ") == 1


def test_names_can_not_become_html(visit, galleries, tmp_path):
    drawn_photo(seed=9).save(tmp_path / "odd.png")
    odd = "<b onclick='x'>\"${1+1}{{y}}"
    galleries["shop"].add([tmp_path / "odd.png"], [odd], [{"brand": "<i>"}])
    try:
        visit.wish('<img src="x">')
        html = markup.results_part(visit) + markup.trail_part(visit) + markup.line("<b>")
        assert odd not in html
        assert not re.search(r"<(b|i)[ >]|<img src=\"x\"", html)
    finally:
        galleries["shop"].delete([odd])


def test_each_field_becomes_a_condition_that_the_gallery_reads(model, galleries):
    async def build():
        with gr.Blocks(analytics_enabled=False):
            return SearchPart(galleries)

    part = asyncio.run(build())
    shop = galleries["shop"]
    types = {
        name: {"str": str, "int": int, "float": float, "bool": bool}[kind] for name, kind in shop.info.fields.items()
    }
    given = {"Category": ["dress", "skirt"], "Color": ["red"], "Price, at least": 10.0, "Stock, at most": 3}
    given |= {"Sale": "yes", "Brand": "50% o'"}
    components = {control.label: control for control, _ in part.filters["shop"].conditions}
    nothing = {control: control.value for control in components.values()}
    assert part.filters["shop"].where(nothing) is None
    where = part.filters["shop"].where(nothing | {components[label]: value for label, value in given.items()})
    assert where.startswith("\"category\" in ('dress', 'skirt') and \"color\" in ('red')")
    parse_where(where, types)
    only = {label: value for label, value in given.items() if label not in ("Category", "Color")}
    where = part.filters["shop"].where(nothing | {components[label]: value for label, value in only.items()})
    found = shop.search(model.encode(texts=["a dress"]), where=where)
    assert [match.id for match in found] == ["shop-2"]
    assert [choice[1] for choice in components["Category"].choices][:2] == ["tee", "button_down"]


def test_filters_are_there_for_a_gallery_that_has_some_and_told_with_the_results(engine, visit, galleries, tmp_path):
    async def build(both):
        with gr.Blocks(analytics_enabled=False):
            return SearchPart(both)

    with Gallery.create(tmp_path / "plain", engine.model) as plain:
        both = {"plain": plain, "shop": galleries["shop"]}
        part = asyncio.run(build(both))
        assert not part.drawer.visible
        for name in both:
            shown = part.show({part.wish: ""}, Visit(engine, both, name))
            assert shown[part.drawer].visible == (name == "shop")
    assert "filtered" not in markup.results_part(visit)
    visit.where = "category is not null or category is null"
    visit.wish("a dress")
    assert f"of {galleries['shop'].info.count} photos, filtered" in markup.results_part(visit)


def built(engine, galleries):
    """The page; Gradio leaves event loops open where none is running."""

    async def build():
        return build_page(engine, galleries)

    return asyncio.run(build())


def ask(page, name, event, **values):
    """What a handler of the page returns, as Gradio calls it: the value by component, and the state."""
    (function,) = [
        fn for fn in page.fns.values() if any(target[1] == name for target in fn.targets) and len(fn.targets) == 1
    ][:1]
    given = {block: getattr(block, "value", None) for block in function.inputs} | values
    result = function.fn(given, gr.EventData(None, event))
    return result, function


def sent_photo(content):
    return {"name": "photo.png", "content": "data:image/png;base64," + base64.b64encode(content).decode()}


def test_a_page_without_a_gallery_recognizes_and_a_broken_photo_is_a_line(engine, photo):
    page = built(engine, {})
    shown, _ = ask(page, "upload", sent_photo(photo))
    assert any("fr-garments" in str(value) for value in shown.values())
    shown, _ = ask(page, "upload", sent_photo(b"no photo at all"))
    assert re.fullmatch(r'<p class="fr-line" role="alert">.*photo\.png.*</p>', *shown.values())
    for wrong in ({}, {"name": "x", "content": "data:image/png;base64,!"}, {"name": 3, "content": None}):
        shown, _ = ask(page, "upload", wrong)
        assert "load the page again" in next(iter(shown.values()))


def test_what_nobody_expected_is_logged_and_told_in_one_line(engine, photo, monkeypatch, caplog):
    monkeypatch.setattr(Engine, "recognize", lambda *_, **__: 1 / 0)
    shown, _ = ask(built(engine, {}), "upload", sent_photo(photo))
    assert "something went wrong" in next(iter(shown.values()))
    assert "ZeroDivisionError" in caplog.text


def test_a_request_that_names_a_file_or_a_url_is_refused(engine, galleries):
    page = built(engine, galleries)
    function = next(fn for fn in page.fns.values() if any(target[1] == "upload" for target in fn.targets))
    for path in ("/etc/passwd", "http://example.com/photo.jpg"):
        value = {"path": path, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(gr.Error, match="no file"):
            asyncio.run(page.preprocess_data(function, [value for _ in function.inputs], None))


def test_numbers_from_the_page_are_checked():
    assert parts.sent_number(gr.EventData(None, {"value": "12"})) == 12
    for wrong in ({"value": "-1"}, {"value": "x"}, {"value": "1" * 12}, {"value": 3}, None):
        with pytest.raises(InputError, match="load the page again"):
            parts.sent_number(gr.EventData(None, wrong))


@pytest.fixture(scope="module")
def client(engine, galleries):
    app = FastAPI()
    app.get("/v1/models")(lambda: ["tiny"])
    mount.mount_page(app, engine, galleries, max_body=50_000)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def wait_for_page(client):
    for _ in range(300):
        text = client.get("/").text
        if "gradio_config" in text:
            return text
        assert "http-equiv" in text
        time.sleep(0.1)
    raise AssertionError("the page did not start")


def test_the_service_is_up_before_the_page_and_its_routes_come_first(client):
    assert client.get("/v1/models").json() == ["tiny"]
    html = wait_for_page(client)
    assert "<title>" in html or "gradio-app" in html
    assert client.get("/v1/models").json() == ["tiny"]
    assert client.post("/v1/models").status_code == 405
    assert client.get("/v1/nothing").status_code == 404
    assert client.get("/docs").status_code == 200


def test_of_gradio_only_what_the_page_needs_is_served(client):
    html = wait_for_page(client)
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
    assert re.search(r"\./assets/index-[\w-]+\.js", html)
    icon = files("fashion_retrieval").joinpath("assets", "page", "icon.png")
    assert client.get("/favicon.ico").content == icon.read_bytes()
    for path in (
        f"/gradio_api/file={icon}",
        "/gradio_api/file=http://example.com/",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/runs",
        "/monitoring",
        "/login",
        "/static/../../../../etc/passwd",
    ):
        assert client.get(path).status_code in (400, 403, 404), path
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404
    large = client.post("/gradio_api/queue/join", content=(b" " * 10_000 for _ in range(9)))
    assert large.status_code == 413


def test_the_service_ends_at_once_while_a_page_is_open(engine):
    seen = []

    def stay(url):
        with httpx.stream("GET", url, timeout=60) as stream:
            seen.extend(stream.iter_lines())

    with served(engine, {}) as address:
        while "gradio_config" not in httpx.get(address).text:
            time.sleep(0.1)
        visitor = threading.Thread(target=stay, args=(f"{address}gradio_api/heartbeat/visitor",))
        visitor.start()
        while not seen:
            time.sleep(0.02)
        begun = time.monotonic()
    visitor.join(10)
    assert (seen[0], visitor.is_alive()) == ("data: ALIVE", False)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MissingExtraError("gradio is needed; run: pip install 'fashion-retrieval[page]'"), "[page]"),
        (RuntimeError("secret"), "the log of the service says why"),
    ],
)
def test_without_gradio_the_page_says_how_to_install_it(engine, monkeypatch, error, line):
    async def fail(*_):
        raise error

    monkeypatch.setattr(mount._Page, "_build", fail)
    app = FastAPI()
    mount.mount_page(app, engine, {})
    with TestClient(app) as client:
        for _ in range(50):
            text = client.get("/").text
            if "refresh" not in text:
                break
            time.sleep(0.02)
    assert line in text
    assert '<a href="docs">' in text
    assert "secret" not in text


def test_demo_photos_that_are_missing_are_told(model, monkeypatch, tmp_path):
    assert len(list(demo._photos().glob("*.jpg"))) == 43
    monkeypatch.setattr(demo, "_photos", lambda: tmp_path)
    with pytest.raises(GalleryError, match="install fashion-retrieval again"):
        demo.demo_gallery(model, tmp_path)
