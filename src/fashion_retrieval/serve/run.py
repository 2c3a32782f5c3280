"""Start the service: check what it is given, load, listen, and end in order."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from fashion_retrieval.errors import InputError
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.demo import demo_gallery
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.mount import mount_page
from fashion_retrieval.serve.opening import check_host, check_origins, open_galleries, parse_size, read_keys
from fashion_retrieval.serve.state import Service

if TYPE_CHECKING:
    from fashion_retrieval.gallery import Gallery

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"python_multipart": {"level": "CRITICAL"}},  # it warns of each form that it refuses, as we do
}

_LONGEST = 86_400


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `fashion-retrieval serve` is given; see its --help."""

    galleries: tuple[str, ...]
    host: str
    port: int
    model: str
    backend: str
    device: str
    dtype: str
    api_key_file: Path | None
    origins: tuple[str, ...]
    max_body: str
    max_pixels: int
    queue: int
    timeout: float
    writable: bool
    uploads: Path | None
    page: bool
    demo: bool


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM: what runs then is finished, the rest is refused. `tell` shows a line.

    Raises:
        InputError: A setting can't be used, or the port is taken.
        GalleryError: A gallery can't be opened.
    """
    keys = read_keys(settings.api_key_file) if settings.api_key_file else ()
    check_host(settings.host, keys)
    check_origins(settings.origins)
    if not 0.1 <= settings.timeout <= _LONGEST:  # nan is neither
        raise InputError(f"--timeout must be from 0.1 to {_LONGEST} seconds, got {settings.timeout}")
    max_body = parse_size(settings.max_body)
    # uvicorn ends in order, then raises the signal again: it must not cut off what is left to do here.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        taken = stack.enter_context(_bind(settings.host, settings.port))
        from fashion_retrieval import FashionModel

        model = FashionModel.from_pretrained(
            settings.model, backend=settings.backend, device=settings.device, dtype=settings.dtype
        )
        galleries = open_galleries(settings.galleries, model)
        for gallery in galleries.values():
            stack.enter_context(gallery)
        if settings.demo and "demo" in galleries:
            raise InputError("--demo adds a gallery named 'demo', and there is one; name yours otherwise: NAME=PATH")
        if settings.demo:
            tell("indexing the example photos; this takes some seconds")
            folder = stack.enter_context(TemporaryDirectory(prefix="fashion-retrieval-"))
            galleries["demo"] = stack.enter_context(demo_gallery(model, folder))
        uploads = _uploads(settings, galleries) if settings.writable else None
        engine = Engine(model, queue=settings.queue, max_pixels=settings.max_pixels)
        stack.callback(engine.close)
        service = Service(engine, galleries, settings.timeout, max_body, uploads)
        app = create_app(service, keys=keys, origins=settings.origins)
        end_page = mount_page(app, engine, galleries, max_body=max_body) if settings.page else lambda: None
        _warm_up(engine)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{taken.getsockname()[1]}"
        told = f"{address} (a key is needed)" if keys else address
        tell(f"{service.model_name} is served at {told}; its API: {address}/docs")
        config = uvicorn.Config(
            app,
            log_config=_LOGGING,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.timeout) + 1,
        )
        _Server(config, end_page).run(sockets=[taken])


class _Server(uvicorn.Server):
    """Ends the streams of open pages as soon as it is told to end: it would wait for them."""

    def __init__(self, config: uvicorn.Config, end_page: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_page = end_page

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGINT and SIGTERM."""
        self._end_page()
        super().handle_exit(sig, frame)


def _bind(host: str, port: int) -> socket.socket:
    """The socket, taken before anything is loaded; until the service is ready connections are refused."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(kind)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"can't listen at {host}, port {port} ({reason}); give another --port or --host") from error
    return taken


def _uploads(settings: Settings, galleries: Mapping[str, Gallery]) -> dict[str, Path]:
    """Where each gallery's added photos go."""
    if settings.uploads:
        return {name: settings.uploads.absolute() / name for name in galleries}
    folders = {name: Path(gallery.info.uri) for name, gallery in galleries.items()}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise InputError(f"gallery {name!r} is no folder that could keep added photos; give --uploads DIR")
    return {name: folder.absolute() / "photos" for name, folder in folders.items()}


def _warm_up(engine: Engine) -> None:
    """Bring in what a first request would wait for."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (64, 64), "gray").save(buffer, format="PNG")
    engine.recognize(buffer.getvalue(), "warm-up", boxes=[[0, 0, 64, 64]]).result()
