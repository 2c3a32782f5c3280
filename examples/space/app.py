"""The page of `fashion-retrieval serve --demo` as a Hugging Face Space."""

from __future__ import annotations

import os
import tempfile

import uvicorn
from fastapi import FastAPI

from fashion_retrieval import FashionModel
from fashion_retrieval.serve.demo import demo_gallery
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.mount import mount_page


def main() -> None:
    """Index the example photos, then serve the page."""
    model = FashionModel.from_pretrained("compact")
    with tempfile.TemporaryDirectory() as folder, demo_gallery(model, folder) as gallery:
        engine = Engine(model, max_pixels=50_000_000)
        app = FastAPI(openapi_url=None)  # the page alone: a Space is open to everybody
        mount_page(app, engine, {"wardrobe": gallery})
        host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
        uvicorn.run(app, host=host, port=int(os.environ.get("PORT", "7860")), timeout_graceful_shutdown=5)
        engine.close()


if __name__ == "__main__":
    main()
