"""Routes of the galleries: search, pictures, adding and deleting."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as FromPath
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.refinement import Refinement
from fashion_retrieval.serve.bodies import document, read_request
from fashion_retrieval.serve.problems import RequestError, problem_of
from fashion_retrieval.serve.requests import EXAMPLE_PHOTO, AddRequest, DeleteRequest, SearchRequest, Upload
from fashion_retrieval.serve.responses import (
    AddResponse,
    DeleteResponse,
    GalleryFound,
    MatchFound,
    PhotoFailed,
    SearchResponse,
)
from fashion_retrieval.serve.state import Service
from fashion_retrieval.serve.uploads import Uploads, thumbnail
from fashion_retrieval.serve.vision import REFUSED

if TYPE_CHECKING:
    from fashion_retrieval.gallery.gallery import Gallery
    from fashion_retrieval.results import Match

Name = Annotated[str, FromPath(description="The gallery's name.", examples=["shop"])]
Id = Annotated[str, FromPath(description="The photo's id.", examples=["shirt-1"])]
Size = Annotated[int, Query(ge=16, le=1024, description="Pixels of its longer side at most.")]


def routes(service: Service) -> APIRouter:
    """The routes over a service's galleries; those that write are there for a writable service only."""
    engine = service.engine
    router = APIRouter(prefix="/v1/galleries", responses=REFUSED, tags=["galleries"])

    def described(name: str) -> GalleryFound:
        info = service.gallery(name).info
        return GalleryFound(
            name=name,
            count=info.count,
            fields=info.fields,
            taxonomy=info.taxonomy,
            writable=service.uploads is not None,
        )

    @router.get("")
    def galleries() -> list[GalleryFound]:
        """The galleries that can be searched."""
        return [described(name) for name in service.galleries]

    @router.get("/{name}")
    def gallery(name: Name) -> GalleryFound:
        """One gallery: how many photos, and what fields can be filtered by."""
        return described(name)

    @router.post(
        "/{name}/search",
        response_model=SearchResponse,
        openapi_extra=document(SearchRequest, {"text": "a red dress", "where": "category = 'dress'", "top_k": 10}),
    )
    async def search(request: Request, name: Name) -> SearchResponse:
        """Photos that are nearest to a text, a photo, an id, or a photo or id with a wish in words."""
        gallery = service.gallery(name)
        asked = await read_request(request, service, SearchRequest)
        exclude = {*asked.exclude, *([asked.id] if asked.id else [])}
        given: dict[str, Any] = asked.model_dump(
            include={"top_k", "where", "offset", "min_score", "group_by", "unique"}
        )
        given["exclude"] = exclude
        if asked.text is not None and asked.id is not None:
            photo: Upload | None = await asyncio.to_thread(_file, gallery, asked.id)
        else:
            photo = asked.image
        turns = Refinement(engine.model, gallery, max_pixels=engine.max_pixels)
        read, understood = turns.read(asked.text or ""), None
        if read.negative or read.rivals:
            content = photo.content if photo else None
            ask = partial(turns.ask, asked.text, content, text_weight=asked.text_weight, **given)
            found = await service.result(request, engine.run(ask))
            understood = turns.history[-1].understood
        else:
            query = await _query(service, request, gallery, asked, photo)
            found = await asyncio.to_thread(gallery.search, query, **given)
        return SearchResponse(results=[_told(name, match) for match in found], understood=understood)

    @router.get(
        "/{name}/photos/{id:path}/image",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}, "description": "A JPEG"}},
    )
    def image(name: Name, id: Id, size: Size = 384) -> Response:
        """A small picture of a photo of the gallery."""
        match = _match(service.gallery(name), id)
        if match.photo is None:
            raise RequestError(404, f"gallery {name!r} keeps no file of photo {id!r:.80}")
        try:
            content = thumbnail(match.photo, size, service.engine.max_pixels)
        except InputError as error:
            raise RequestError(404, f"the file of photo {id!r:.80} can't be read any more") from error
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    if service.uploads is not None:
        _writing(router, service)
    return router


def _writing(router: APIRouter, service: Service) -> None:
    def uploads(name: str) -> Uploads:
        return Uploads(service.gallery(name), (service.uploads or {})[name], service.engine.max_pixels)

    @router.post(
        "/{name}/photos",
        response_model=AddResponse,
        openapi_extra=document(AddRequest, {"photos": [EXAMPLE_PHOTO], "ids": ["shirt-1"]}),
    )
    async def add(request: Request, name: Name) -> AddResponse:
        """Add photos, or replace those of the same ids."""
        shelf = uploads(name)
        asked = await read_request(request, service, AddRequest)
        # In the model's thread: one write after the other, and the model is asked by nobody else meanwhile.
        call = partial(shelf.add, asked.photos, asked.ids, asked.metadata)
        report = await service.result(request, service.engine.run(call))
        failed = [PhotoFailed(source=asked.ids[one.index], error=problem_of(one.error)) for one in report.failures]
        return AddResponse(added=report.added, updated=report.updated, unchanged=report.unchanged, failures=failed)

    @router.delete("/{name}/photos", openapi_extra=document(DeleteRequest, {"ids": ["shirt-1"]}, form=False))
    async def delete(request: Request, name: Name) -> DeleteResponse:
        """Remove photos."""
        shelf = uploads(name)
        asked = await read_request(request, service, DeleteRequest)
        call = partial(shelf.delete, asked.ids)
        return DeleteResponse(deleted=await service.result(request, service.engine.run(call)))

    @router.delete("/{name}/photos/{id:path}")
    async def delete_one(request: Request, name: Name, id: Id) -> DeleteResponse:
        """Remove one photo."""
        shelf = uploads(name)
        _match(shelf.gallery, id)
        call = partial(shelf.delete, [id])
        return DeleteResponse(deleted=await service.result(request, service.engine.run(call)))


async def _query(
    service: Service, request: Request, gallery: Gallery, asked: SearchRequest, photo: Upload | None
) -> NDArray[np.float32]:
    engine, text = service.engine, asked.text
    if photo is None and text is None:
        return await asyncio.to_thread(_embedding, gallery, asked.id or "")
    if photo is None:
        future = engine.encode_text(text or "")
    elif text is None:
        future = engine.encode_image(photo.content, photo.name)
    else:
        future = engine.compose(photo.content, photo.name, text, text_weight=asked.text_weight)
    return await service.result(request, future)


def _file(gallery: Gallery, id: str) -> Upload:
    """The file of a photo of the gallery; the error doesn't tell its place."""
    match = _match(gallery, id)  # whose 404 is a ValueError too
    try:
        return Upload(Path(match.photo or "").read_bytes(), f"photo {id!r:.80}")
    except (OSError, ValueError) as error:
        raise InputError(f"the file of photo {id!r:.80} can't be read; send the photo itself") from error


def _match(gallery: Gallery, id: str) -> Match:
    try:
        return gallery.get(id)
    except InputError as error:
        raise RequestError(404, f"this gallery has no photo {id!r:.80}") from error


def _embedding(gallery: Gallery, id: str) -> NDArray[np.float32]:
    try:
        return np.asarray(gallery.embeddings([id])[0])
    except (InputError, KeyError) as error:  # deleted since; the message has the gallery's place
        raise RequestError(404, f"this gallery has no photo {id!r:.80}") from error


def _told(name: str, match: Match) -> MatchFound:
    address = f"/v1/galleries/{name}/photos/{quote(match.id, safe='')}/image"
    return MatchFound(id=match.id, score=match.score, fields=match.fields, image=address if match.photo else None)
