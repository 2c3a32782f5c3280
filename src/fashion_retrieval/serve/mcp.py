"""Tools for agents over the Model Context Protocol, all read only: recognize, search, compose, list_galleries."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import cleandoc
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import mcp_types as types
import numpy as np
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.types import ASGIApp

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.items import recognized_fields
from fashion_retrieval.gallery.refinement import Refinement, Turn
from fashion_retrieval.images.load import decode, load_image
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.serve import tools
from fashion_retrieval.serve.engine import BusyError, Engine
from fashion_retrieval.serve.limits import Gate
from fashion_retrieval.serve.problems import problem_of
from fashion_retrieval.serve.requests import Upload, decode_photo
from fashion_retrieval.serve.responses import RecognitionFound
from fashion_retrieval.serve.state import Service
from fashion_retrieval.serve.uploads import thumbnail

if TYPE_CHECKING:
    from fashion_retrieval.gallery.gallery import Gallery
    from fashion_retrieval.results import Match

Answer: TypeAlias = tuple[BaseModel, Sequence[tuple[str, bytes]]]
"""What a tool tells, and JPEG pictures with a line for each."""

_log = logging.getLogger(__name__)
_SIDE = 256
"""Pixels of a thumbnail's longer side."""
_CARD = 640
"""Pixels of a card's width."""
_ANSWER = {"top_k", "where", "offset", "unique"}
"""What `Gallery.search` is asked as it was given."""
_MOST_BYTES = 64 << 20
"""Of a photo's file below the photo folder, and of a request by HTTP."""
_ABOUT = (
    "Knows clothes. recognize says what is in a photo; search and compose find photos of the galleries that "
    "list_galleries names. Nothing is changed, fetched or kept."
)


def build_mcp(engine: Engine, galleries: Mapping[str, Gallery], *, photos: Path | None = None) -> Server[Any]:
    """The tools as a server of the MCP SDK: `run` it on two streams, or take its `streamable_http_app`.

    Args:
        engine: What computes.
        galleries: What can be searched, opened with the engine's model.
        photos: A folder whose photos agents may name by their path in it; without one, photos come as base64 only.

    Raises:
        InputError: `photos` is no folder.
    """
    from fashion_retrieval import __version__

    desk = _Desk(engine, galleries, photos)
    offered = {tool.name: tool for tool in desk.offers()}

    async def list_tools(_: ServerRequestContext[Any], __: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.described(desk.told) for tool in offered.values()])

    async def call_tool(_: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            if params.name not in offered:
                raise InputError(f"there is no tool {params.name!r:.80}; the tools are {', '.join(offered)}")
            tool = offered[params.name]
            return _result(*await tool.answer(tool.asked.model_validate(params.arguments or {})))
        except Exception as error:
            problem = problem_of(error)
            if problem.status >= 500 and not isinstance(error, BusyError):
                _log.error("the tool %s failed", params.name, exc_info=error)
            return types.CallToolResult(content=[types.TextContent(text=problem.detail)], is_error=True)

    return Server(
        "fashion-retrieval",
        version=__version__,
        instructions=_ABOUT,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def run_stdio(server: Server[Any]) -> None:
    """Serve the program that started this process, until it closes stdin; meanwhile prints go to stderr."""
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())


def http_app(server: Server[Any], *, keys: Sequence[str] = ()) -> ASGIApp:
    """The tools at /mcp, by streamable HTTP without sessions: any of several processes may answer.

    Args:
        server: What `build_mcp` made.
        keys: What clients must send one of. Without any, only this computer's own names are answered to.
    """
    # The SDK's own check of the Host header knows this computer's names alone; with keys, others may be asked for.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False) if keys else None
    options: dict[str, Any] = {"stateless_http": True, "transport_security": security}
    app = server.streamable_http_app(max_request_body_size=_MOST_BYTES, **options)
    return Gate(app, keys=keys, origins=(), max_body=_MOST_BYTES)


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    asked: type[BaseModel]
    answer: Callable[[Any], Awaitable[Answer]]
    tells: type[BaseModel]

    def described(self, photo: str) -> types.Tool:
        schema = self.asked.model_json_schema()
        if "photo" in schema["properties"]:
            schema["properties"]["photo"]["description"] = photo
        return types.Tool(
            name=self.name,
            description=cleandoc(str(self.asked.__doc__)),
            input_schema={key: value for key, value in schema.items() if key != "description"},
            output_schema=self.tells.model_json_schema(mode="serialization"),
            annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
        )


class _Desk:
    """Answers what tools are asked."""

    def __init__(self, engine: Engine, galleries: Mapping[str, Gallery], photos: Path | None) -> None:
        if photos is not None and not photos.is_dir():
            raise InputError(f"the folder of photos must exist, got {str(photos)!r}; give a folder")
        self._engine = engine
        self._galleries = galleries
        self._model = Service(engine).model_name
        self._photos = None if photos is None else photos.resolve()
        below = " or a path in the server's photo folder, with its ending: 'coats/red.jpg'" if photos else ""
        self.told = f"The photo's file as base64 or a data URL{below}. Addresses are not fetched."

    def offers(self) -> Iterable[_Tool]:
        yield _Tool("recognize", tools.Recognize, self.recognize, RecognitionFound)
        yield _Tool("search", tools.Search, self.search, tools.SearchFound)
        yield _Tool("compose", tools.Compose, self.compose, tools.ComposeFound)
        yield _Tool("list_galleries", tools.ListGalleries, self.list_galleries, tools.GalleriesFound)

    async def recognize(self, asked: tools.Recognize) -> Answer:
        photo = await asyncio.to_thread(self._read, asked.photo)
        future = self._engine.recognize(photo.content, photo.name, boxes=asked.boxes, top_k=asked.top_k)
        found = replace(await asyncio.wrap_future(future), model_id=self._model)

        def card() -> bytes:
            image = load_image(photo.content, max_pixels=self._engine.max_pixels)
            buffer = BytesIO()
            replace(found, image=image).draw(width=_CARD).save(buffer, format="JPEG", quality=80)
            return buffer.getvalue()

        pictures = [("The photo with its garments, numbered in order.", await asyncio.to_thread(card))]
        return RecognitionFound.model_validate(found.to_dict()), pictures

    async def search(self, asked: tools.Search) -> Answer:
        name, gallery = self._gallery(asked.gallery)
        understood: dict[str, str] = {}
        if asked.text is not None:
            turn = await self._turn(name, asked, [asked.text])
            matches, understood = turn.matches, {"understood": turn.understood}
        else:
            query = await self._query(name, asked)
            exclude = {asked.id} if asked.id else set()
            given = partial(gallery.search, query, exclude=exclude, **asked.model_dump(include=_ANSWER))
            matches = await asyncio.to_thread(given)
        told = tools.SearchFound(gallery=name, **understood, results=[_found(match) for match in matches])
        return told, await self._pictures(matches) if asked.thumbnails else ()

    async def compose(self, asked: tools.Compose) -> Answer:
        name, _ = self._gallery(asked.gallery)
        turn = await self._turn(name, asked, asked.wishes, text_weight=asked.text_weight, exclude=asked.exclude)
        results = [_found(match) for match in turn.matches]
        told = tools.ComposeFound(gallery=name, wishes=list(turn.wishes), understood=turn.understood, results=results)
        return told, await self._pictures(turn.matches) if asked.thumbnails else ()

    async def list_galleries(self, _: tools.ListGalleries) -> Answer:
        found = [asyncio.to_thread(_described, name, gallery) for name, gallery in self._galleries.items()]
        return tools.GalleriesFound(galleries=await asyncio.gather(*found)), ()

    async def _query(self, name: str, asked: tools.Search) -> NDArray[np.float32]:
        """(D,) float32 of an id or a photo."""
        if asked.id is not None:
            return await asyncio.to_thread(self._embedding, name, asked.id)
        photo = await asyncio.to_thread(self._read, str(asked.photo))
        return await asyncio.wrap_future(self._engine.encode_image(photo.content, photo.name))

    async def _turn(
        self,
        name: str,
        asked: tools.Search | tools.Compose,
        wishes: Sequence[str],
        exclude: Sequence[str] = (),
        text_weight: float | None = None,
    ) -> Turn:
        """One turn of all wishes, oldest first."""
        most, model, gallery = self._engine.max_pixels, self._engine.model, self._galleries[name]

        def start() -> NDArray[np.uint8] | None:
            if asked.id is None and asked.photo is None:
                return None
            photo = self._read(str(asked.photo)) if asked.id is None else self._kept(name, asked.id)
            return decode(photo.content, photo.name, max_pixels=most).srgb()

        def ask(reference: NDArray[np.uint8] | None) -> Turn:
            turns = Refinement(model, gallery, max_pixels=most)
            left_out = {*exclude, *([asked.id] if asked.id else [])}
            how: dict[str, Any] = {"text_weight": text_weight, "exclude": left_out, **asked.model_dump(include=_ANSWER)}
            turns.ask(wishes, reference, **how)
            return turns.history[-1]

        return await asyncio.wrap_future(self._engine.run(partial(ask, await asyncio.to_thread(start))))

    async def _pictures(self, matches: Sequence[Match]) -> list[tuple[str, bytes]]:
        """A thumbnail of each match that has a photo which can be read."""

        def picture(match: Match) -> bytes | None:
            try:
                return thumbnail(match.photo, _SIDE, self._engine.max_pixels) if match.photo else None
            except InputError:
                return None

        made = await asyncio.gather(*(asyncio.to_thread(picture, match) for match in matches))
        lines = (f"{rank}. {match.id}" for rank, match in enumerate(matches, start=1))
        return [(line, content) for line, content in zip(lines, made, strict=True) if content]

    def _gallery(self, name: str | None) -> tuple[str, Gallery]:
        if name is None and len(self._galleries) == 1:
            (name,) = self._galleries
        if name is None or name not in self._galleries:
            known = ", ".join(self._galleries) or "none; the server is started with them"
            raise InputError(f"gallery must be the name of one, got {name!r:.80}; there are: {known}")
        return name, self._galleries[name]

    def _embedding(self, name: str, id: str) -> NDArray[np.float32]:
        return np.asarray(self._galleries[name].embeddings([self._match(name, id).id])[0])

    def _match(self, name: str, id: str) -> Match:
        try:
            return self._galleries[name].get(id)
        except InputError as error:  # its message has the gallery's place
            raise InputError(f"gallery {name!r} has no photo with id {id!r:.120}; take one from its results") from error

    def _kept(self, name: str, id: str) -> Upload:
        """The file of a photo of a gallery."""
        photo = self._match(name, id).photo
        try:
            return Upload(Path(photo or "").read_bytes(), f"photo {id!r:.120}")
        except (OSError, ValueError) as error:  # whose message would have the photo's place
            raise InputError(f"the file of photo {id!r:.120} can't be read; give the photo itself") from error

    def _read(self, photo: str) -> Upload:
        """The file of a photo that an agent sent or named."""
        head = photo[:4096]
        if head.startswith("data:") or "://" in head or "." not in head:
            try:
                return cast("Upload", decode_photo(photo))
            except ValueError as error:
                raise InputError(str(error)) from error
        if self._photos is None:
            remedy = "send the file as base64, or start the server with --photos DIR"
            raise InputError(f"photo must be base64, got {photo!r:.80}, and this server reads no paths; {remedy}")
        try:
            path = (self._photos / photo).resolve()
            if path.is_relative_to(self._photos) and path.is_file() and path.stat().st_size <= _MOST_BYTES:
                return Upload(path.read_bytes(), f"photo {path.name!r}")
        except (OSError, RuntimeError, ValueError):  # too long, not to be read; a loop of links; a null byte
            pass
        most = f"of at most {_MOST_BYTES >> 20} MiB"
        raise InputError(f"there is no photo {photo!r:.80} {most} in the server's photo folder; check its path in it")


def _result(told: BaseModel, pictures: Sequence[tuple[str, bytes]]) -> types.CallToolResult:
    content: list[types.ContentBlock] = [types.TextContent(text=told.model_dump_json(exclude_unset=True))]
    for line, picture in pictures:
        content.append(types.TextContent(text=line))
        content.append(types.ImageContent(data=b64encode(picture).decode(), mime_type="image/jpeg"))
    return types.CallToolResult(
        content=content, structured_content=told.model_dump(mode="json", exclude_unset=True), is_error=False
    )


def _found(match: Match) -> tools.PhotoFound:
    return tools.PhotoFound(id=match.id, score=round(match.score, 4), fields=match.fields)


def _described(name: str, gallery: Gallery) -> tools.GalleryFound:
    info, taxonomy = gallery.info, gallery.taxonomy
    values: dict[str, list[str]] = {}
    if taxonomy:
        groups = {group.name: group for group in (taxonomy.category, *taxonomy.attributes)}
        named = {"color": list(PALETTE)} | {key: [value.name for value in one.values] for key, one in groups.items()}
        values = {field: named[field] for field in recognized_fields(taxonomy)}
    fields = [tools.FieldFound(name=field, type=kind, values=values.get(field)) for field, kind in info.fields.items()]
    return tools.GalleryFound(name=name, count=info.count, fields=fields)
