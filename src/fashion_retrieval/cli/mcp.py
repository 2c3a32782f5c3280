"""`fashion-retrieval mcp`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fashion_retrieval._utils.optional import check_installed
from fashion_retrieval.cli.options import env


def mcp(
    galleries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]GALLERY...", help="Folders or URIs of galleries.", **env("GALLERIES")),
    ] = None,
    transport: Annotated[
        Literal["stdio", "http"],
        typer.Option(help="stdio for the program that starts this one, or HTTP at /mcp.", **env("TRANSPORT")),
    ] = "stdio",
    host: Annotated[str, typer.Option(help="Where to listen, by HTTP.", **env("HOST"))] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Likewise.", **env("PORT"))] = 8001,
    model: Annotated[str, typer.Option(help="'compact', a folder or a Hub repository.", **env("MODEL"))] = "compact",
    backend: Annotated[str, typer.Option(help="auto, torch, openvino or onnx.", **env("BACKEND"))] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...", **env("DEVICE"))] = "auto",
    photos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photos that agents may name by path.", **env("PHOTOS"))
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keys for HTTP, one a line.", **env("API_KEY_FILE"))
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse photos with more pixels.", **env("MAX_PIXELS"))
    ] = 50_000_000,
    queue: Annotated[
        int, typer.Option(min=1, help="How many calls may be under way; more are refused.", **env("QUEUE"))
    ] = 64,
) -> None:
    """Offer recognize, search and compose to agents, as tools of the Model Context Protocol. They only read.

    Each option can also come from the environment: FASHION_RETRIEVAL_PHOTOS, FASHION_RETRIEVAL_GALLERIES and so on.
    """
    check_installed("mcp", "mcp")
    check_installed("fastapi", "mcp")
    import asyncio

    from fashion_retrieval.serve.opening import check_host, open_galleries, read_keys

    keys = read_keys(api_key_file) if api_key_file and transport == "http" else ()
    if transport == "http":
        check_host(host, keys)
    from fashion_retrieval import FashionModel
    from fashion_retrieval.serve.engine import Engine
    from fashion_retrieval.serve.mcp import build_mcp, http_app, run_stdio

    loaded = FashionModel.from_pretrained(model, backend=backend, device=device)
    opened = open_galleries(galleries or (), loaded)
    engine = Engine(loaded, queue=queue, max_pixels=max_pixels)
    try:
        server = build_mcp(engine, opened, photos=photos)
        if transport == "stdio":
            asyncio.run(run_stdio(server))
        else:
            import uvicorn

            # uvicorn ends in order, then raises the signal again, which must not cut off what is left to do here.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            uvicorn.run(http_app(server, keys=keys), host=host, port=port, access_log=False)
    finally:
        engine.close()
        for gallery in opened.values():
            gallery.close()
