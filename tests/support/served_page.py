"""The page of the service, served for a browser. `python -m tests.support.served_page FOLDER` takes its pictures:

page.png for README.md and the documentation, and a phone's and a dark one to look at.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.serve.engine import Engine
from tests.support.paths import ROOT

CHROMIUM = Path("/usr/bin/chromium")
PHOTO = ROOT / "examples" / "wardrobe" / "denim-jacket.jpg"
LOOKS: dict[str, dict[str, Any]] = {
    "page": {"viewport": {"width": 1280, "height": 960}},
    "dark": {"viewport": {"width": 1280, "height": 960}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 375, "height": 740}},
}


@contextmanager
def served(engine: Engine, galleries: Mapping[str, Gallery]) -> Iterator[str]:
    """The address of a service with the page, in a thread of this process."""
    import uvicorn
    from fastapi import FastAPI

    from fashion_retrieval.serve.mount import mount_page

    app = FastAPI()
    stop = mount_page(app, engine, galleries)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        stop()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wish(page: Any, words: str) -> None:
    """Ask for something, and wait until it is a turn."""
    turns = page.locator(".fr-trail li").count()
    page.get_by_label("What do you look for?").fill(words)
    page.keyboard.press("Enter")
    page.locator(".fr-trail li").nth(turns).wait_for()


def _take_pictures(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    from fashion_retrieval import FashionModel
    from fashion_retrieval.serve.demo import demo_gallery

    engine = Engine(FashionModel.from_pretrained("compact"))
    with tempfile.TemporaryDirectory() as temporary, demo_gallery(engine.model, temporary) as gallery:
        with served(engine, {"wardrobe": gallery}) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
            for name, settings in LOOKS.items():
                page = browser.new_context(**settings).new_page()
                page.goto(address)
                page.set_input_files("input[type=file]", PHOTO)
                page.locator("button.fr-head").first.click()
                page.locator(".fr-trail li").wait_for()
                wish(page, "in red")
                wish(page, "made of leather")
                page.mouse.move(0, 0)
                page.evaluate("document.activeElement.blur()")
                page.wait_for_timeout(500)
                shot = Image.open(BytesIO(page.screenshot(full_page=name == "phone")))
                shot.convert("RGB").quantize(160).save(folder / f"{name}.png", optimize=True)  # some 300 kB
                page.context.close()
            browser.close()
    engine.close()


if __name__ == "__main__":
    _take_pictures(Path(sys.argv[1]))
