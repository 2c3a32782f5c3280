"""The page in a real Chromium, with the embedded model and the photos of `--demo`."""

from urllib.parse import urlsplit

import pytest

from fashion_retrieval.serve import demo
from fashion_retrieval.serve.engine import Engine
from tests.support.paths import ROOT
from tests.support.served_page import CHROMIUM, served, wish

PHOTO = ROOT / "examples" / "wardrobe" / "blue-dress.jpg"
if not CHROMIUM.exists():
    pytest.skip(
        f"NO CHROMIUM, so the page is not looked at: apt-get install chromium ({CHROMIUM})", allow_module_level=True
    )
REMEDY = "so the page is not looked at: pip install 'fashion-retrieval[dev]'"
sync_api = pytest.importorskip("playwright.sync_api", reason=f"NO PLAYWRIGHT, {REMEDY}")
pytest.importorskip("gradio", reason=f"NO GRADIO, {REMEDY}")
sync_api.expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def engine(model):
    made = Engine(model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(engine, tmp_path_factory):
    some = tmp_path_factory.mktemp("photos")
    kinds = ("dress", "jacket", "red", "white")
    for path in [path for path in PHOTO.parent.glob("*.jpg") if any(kind in path.name for kind in kinds)]:
        (some / path.name).write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_photos", lambda: some)
        gallery = demo.demo_gallery(engine.model, tmp_path_factory.mktemp("demo"))
    with gallery:
        assert len(gallery) == 13
        with served(engine, {"wardrobe": gallery}) as url:
            yield url


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, address):
    """Opens the page, and looks at the end: nothing went to another host, failed, or was an error for the browser."""
    contexts, hosts, faults = [], set(), []

    def opened(url=address, **settings):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or urlsplit(request.url).scheme))
        page.on("console", lambda message: message.type in ("error", "warning") and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and faults.append(f"{answer.status} {answer.url}"))
        page.goto(url)
        page.wait_for_selector(".fr-target")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert hosts <= {"127.0.0.1", "data", "blob"}
    assert faults == []


def titles(page):
    return page.locator(".fr-result h3").all_inner_texts()


def wait_for_turns(page, count):
    sync_api.expect(page.locator(".fr-trail li")).to_have_count(count)


def recognized(page):
    page.set_input_files("input[type=file]", PHOTO)
    page.wait_for_selector(".fr-garments li")


def check_alt_texts(page):
    images = page.locator("img").all()
    assert images
    for image in images:
        assert (image.get_attribute("alt") or "").strip()


def test_a_photo_is_recognized_a_garment_picked_filtered_and_refined_in_turns(open_page, tmp_path):
    page = open_page()
    recognized(page)
    assert page.locator(".fr-frame path").count() == page.locator(".fr-garments > li").count() >= 1
    first = page.locator(".fr-garments > li").first
    assert "Dress" in first.inner_text().title()
    assert "%" in first.locator("dl").inner_text()
    box = page.locator(".fr-frame img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6)  # the dress, in the picture
    wait_for_turns(page, 1)
    assert page.locator(".fr-garments [aria-pressed=true]").count() == 1
    found = titles(page)
    assert len(found) == 12
    assert sum("dress" in title.lower() for title in found[:4]) >= 2
    wish(page, "in red")
    wish(page, "with long sleeves")
    assert "In red" not in page.locator(".fr-heading h2").inner_text()
    assert "in red · with long sleeves" in page.locator(".fr-heading h2").inner_text()
    assert sum("Red" in title for title in titles(page)[:4]) >= 2
    assert page.locator(".fr-asked").count() >= 2

    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Category", exact=True).click()
    page.get_by_role("option", name="jacket", exact=True).click()
    sync_api.expect(page.locator(".fr-results")).not_to_contain_text("Red skirt")
    jackets = titles(page)
    assert jackets
    assert all("jacket" in title for title in jackets)
    wait_for_turns(page, 3)

    page.get_by_role("button", name="More like").nth(1).click()
    wait_for_turns(page, 4)
    check_alt_texts(page)
    page.get_by_role("button", name="Back one turn").click()
    wait_for_turns(page, 3)
    assert titles(page) == jackets
    page.locator(".fr-trail button").first.click()
    wait_for_turns(page, 1)
    page.get_by_role("button", name="Start over").click()
    wait_for_turns(page, 0)
    assert page.locator(".fr-result").count() == page.locator("[aria-pressed=true]").count() == 0


def test_the_page_works_by_keyboard_alone(open_page):
    page = open_page()
    recognized(page)
    page.locator("body").press("Tab")
    for _ in range(12):
        if page.evaluate("document.activeElement.classList.contains('fr-head')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_turns(page, 1)
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    for _ in range(60):
        page.keyboard.press("Tab")
        if (page.evaluate("document.activeElement.getAttribute('aria-label')") or "").startswith("More like"):
            break
    liked = page.evaluate("document.activeElement.dataset.select")
    page.keyboard.press("Space")
    wait_for_turns(page, 2)
    assert f"More like {liked}" not in page.locator(".fr-results").inner_html()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_photo_can_be_pasted_and_dropped_and_what_is_none_is_a_line(open_page):
    page = open_page()
    send = """async ([kind, target, name, type, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type }));
        const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
            : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector(target).dispatchEvent(event);
    }"""
    content = list(PHOTO.read_bytes())
    page.evaluate(send, ["paste", "body", "photo.jpg", "image/jpeg", content])
    page.wait_for_selector(".fr-garments li")
    page.reload()
    page.wait_for_selector(".fr-target")
    page.evaluate(send, ["drop", ".fr-target", "notes {{x}} ${1}.txt", "text/plain", [110, 111]])
    line = page.locator("[role=alert]")
    sync_api.expect(line).to_contain_text("notes {{x}} ${1}.txt")
    assert "Traceback" not in line.inner_text()
    page.evaluate(send, ["drop", ".fr-target", "photo.jpg", "image/jpeg", content])
    page.wait_for_selector(".fr-garments li")
    assert line.count() == 0


@pytest.mark.parametrize("settings", [{"viewport": {"width": 375, "height": 740}}, {"color_scheme": "dark"}], ids=str)
def test_the_page_fits_a_phone_and_obeys_dark_mode(open_page, settings):
    page = open_page(**settings)
    recognized(page)
    page.locator("button.fr-head").first.click()
    wait_for_turns(page, 1)
    wish(page, "in red")
    page.get_by_role("button", name="Filters").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = settings.get("color_scheme") == "dark"
    shades = "[document.body, document.querySelector('.fr-result h3')]"
    back, ink = page.evaluate(f"{shades}.map((one, at) => getComputedStyle(one)[at ? 'color' : 'backgroundColor'])")
    assert (brightness(back) < 60, brightness(ink) > 180) == (dark, dark)
    assert "Gradio" not in page.locator("body").inner_text()


def brightness(color):
    numbers = [float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    return sum(numbers) / 3


def test_without_a_gallery_the_page_recognizes(engine, open_page):
    with served(engine, {}) as url:
        page = open_page(url)
        recognized(page)
        check_alt_texts(page)
        assert page.locator("button.fr-head").count() == page.get_by_role("button", name="Search").count() == 0
        page.context.close()
