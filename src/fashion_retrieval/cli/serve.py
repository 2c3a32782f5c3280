"""`fashion-retrieval serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fashion_retrieval._utils.optional import imported
from fashion_retrieval.cli.options import env


def serve(
    galleries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=PATH]...", help="Galleries to search: folders or addresses.", **env("GALLERIES")),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this computer's need a key.", **env("HOST"))
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen at; 0 takes a free one.", **env("PORT"))
    ] = 8000,
    model: Annotated[str, typer.Option(help="'compact', a folder or a Hub repository.", **env("MODEL"))] = "compact",
    backend: Annotated[str, typer.Option(help="auto, torch, openvino or onnx.", **env("BACKEND"))] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...", **env("DEVICE"))] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.", **env("DTYPE"))] = "auto",
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys, one a line; clients must send one.", **env("API_KEY_FILE")),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A site whose pages may ask (CORS); repeatable.", **env("ALLOW_ORIGIN")),
    ] = None,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest body of a request.", **env("MAX_BODY"))
    ] = "20MB",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse photos with more pixels.", **env("MAX_PIXELS"))
    ] = 50_000_000,
    queue: Annotated[
        int, typer.Option(min=1, max=10_000, help="Photos and texts under way; more are refused.", **env("QUEUE"))
    ] = 64,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a body to arrive, and for an answer.", **env("TIMEOUT"))
    ] = 30.0,
    writable: Annotated[
        bool, typer.Option("--writable/--read-only", help="Let clients add and delete photos.", **env("WRITABLE"))
    ] = False,
    uploads: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --writable: keeps added photos; by default each gallery's folder.",
            **env("UPLOADS"),
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Show the page at /.", **env("PAGE"))] = True,
    demo: Annotated[bool, typer.Option("--demo", help="Add a gallery of example photos.", **env("DEMO"))] = False,
) -> None:
    """Serve recognition, embeddings and galleries over HTTP, with a page to try them.

    Each option can also come from the environment: FASHION_RETRIEVAL_PORT, FASHION_RETRIEVAL_GALLERIES and so on.
    """
    for package in ("fastapi", "fastapi_swagger", "prometheus_client", "python_multipart", "uvicorn"):
        imported(package, "serve")
    from fashion_retrieval.serve.run import Settings, run

    settings = Settings(
        galleries=tuple(galleries or ()),
        host=host,
        port=port,
        model=model,
        backend=backend,
        device=device,
        dtype=dtype,
        api_key_file=api_key_file,
        origins=tuple(allow_origin or ()),
        max_body=max_body,
        max_pixels=max_pixels,
        queue=queue,
        timeout=timeout,
        writable=writable,
        uploads=uploads,
        page=page,
        demo=demo,
    )
    run(settings, lambda line: typer.echo(line, err=True))
