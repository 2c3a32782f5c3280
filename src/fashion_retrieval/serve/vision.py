"""Routes of the model: recognize, embeddings, compose."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError
from fashion_retrieval.serve.bodies import document, read_request
from fashion_retrieval.serve.problems import Problem, RequestError, answer, problem_of
from fashion_retrieval.serve.requests import (
    EXAMPLE_PHOTO,
    ComposeRequest,
    EmbeddingsRequest,
    RecognizeRequest,
    TextInput,
)
from fashion_retrieval.serve.responses import (
    ComposeResponse,
    EmbeddingRow,
    EmbeddingsResponse,
    ExplainResponse,
    ModelFound,
    ModelsResponse,
    RecognizeResponse,
    Usage,
)
from fashion_retrieval.serve.state import Service

REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": told}
    for status, told in (
        (400, "The body can't be read"),
        (401, "A key is needed"),
        (403, "The host, or the site that asks, is refused"),
        (404, "There is no such model, gallery or photo"),
        (408, "The body took too long"),
        (413, "The body is too large"),
        (415, "The body is of another type"),
        (422, "The request can't be used; detail says why"),
        (503, "Busy; ask again after Retry-After seconds"),
    )
}


def routes(service: Service) -> APIRouter:
    """The routes over a service's engine."""
    router = APIRouter(prefix="/v1", responses=REFUSED)
    engine = service.engine

    @router.get("/models", tags=["model"])
    def models() -> ModelsResponse:
        """The served model, and what it tells apart."""
        model, vocabulary = engine.model, engine.model.recognizer().taxonomy
        described = ModelFound(
            id=service.model_name,
            embedding_dim=model.embedding_dim,
            backend=model.backend,
            device=str(model.device),
            fingerprint=model.fingerprint,
            taxonomy=vocabulary.name,
            categories=[value.name for value in vocabulary.category.values],
            attributes={group.name: [value.name for value in group.values] for group in vocabulary.attributes},
        )
        return ModelsResponse(data=[described])

    @router.post(
        "/recognize",
        tags=["model"],
        response_model=RecognizeResponse,
        response_model_exclude_unset=True,
        openapi_extra=document(RecognizeRequest, {"photos": [EXAMPLE_PHOTO], "top_k": 3}),
    )
    async def recognize(request: Request) -> Any:  # noqa: ANN401  # checked by the model above
        """What is in photos: garments with box, category, attributes and colors.

        A photo that can't be used has an error in its place; where none can, the answer is 422.
        """
        asked = await read_request(request, service, RecognizeRequest)
        # A new taxonomy is prepared in a thread, before the first photo asks for it.
        await asyncio.to_thread(engine.model.recognizer, asked.taxonomy, asked.top_k)
        options: dict[str, Any] = {"boxes": asked.boxes, "taxonomy": asked.taxonomy, "top_k": asked.top_k}
        several = len(asked.photos) > 1
        names = [
            f"photos[{index}]" if several and photo.name == "the photo" else photo.name
            for index, photo in enumerate(asked.photos)
        ]
        calls = [
            partial(engine.recognize, photo.content, name, **options)
            for photo, name in zip(asked.photos, names, strict=True)
        ]
        found = await service.results(request, service.asked(*calls))
        errors = [one for one in found if isinstance(one, BaseException)]
        if len(errors) == len(found):
            return answer(errors[0])

        def plain() -> list[dict[str, Any]]:
            return [
                {"source": name, "error": problem_of(one).model_dump()}
                if isinstance(one, BaseException)
                else {**one.to_dict(asked.masks), "source": name, "model_id": service.model_name}
                for one, name in zip(found, names, strict=True)
            ]

        return {"model": service.model_name, "results": await asyncio.to_thread(plain)}

    @router.post(
        "/embeddings",
        tags=["model"],
        response_model=EmbeddingsResponse,
        openapi_extra=document(EmbeddingsRequest, {"input": ["a red dress"]}, form=False),
    )
    async def embeddings(request: Request) -> Response | EmbeddingsResponse:
        """Embeddings of photos and texts, L2-normalized, in one space; the shape of OpenAI's endpoint."""
        asked = await read_request(request, service, EmbeddingsRequest)
        model = engine.model
        if asked.model not in (None, service.model_name):
            raise RequestError(404, f"this service has the model {service.model_name!r}, got {asked.model!r:.80}")
        if asked.dimensions is not None and asked.dimensions > model.embedding_dim:
            raise InputError(f"dimensions must be at most {model.embedding_dim}, got {asked.dimensions}")
        width = asked.dimensions or model.embedding_dim
        calls = [
            partial(engine.encode_text, item.text)
            if isinstance(item, TextInput)
            else partial(engine.encode_image, item.image.content, f"input[{index}]")
            for index, item in enumerate(asked.input)
        ]
        found = await service.results(request, service.asked(*calls))
        if errors := [one for one in found if isinstance(one, BaseException)]:
            raise errors[0]
        texts = [item.text for item in asked.input if isinstance(item, TextInput)]
        tokens = await asyncio.to_thread(model.towers.count_tokens, texts) if texts else 0
        rows = [
            EmbeddingRow(index=index, embedding=_written(model.shorten(row, width), asked.encoding_format))
            for index, row in enumerate(found)
            if not isinstance(row, BaseException)
        ]
        usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
        return EmbeddingsResponse(data=rows, model=service.model_name, usage=usage)

    @router.post(
        "/compose",
        tags=["model"],
        response_model=ComposeResponse,
        openapi_extra=document(ComposeRequest, {"image": EXAMPLE_PHOTO, "text": "in red with long sleeves"}),
    )
    async def compose(request: Request) -> ComposeResponse:
        """The query of a photo and a wish, for a gallery of your own: "this one, but red"."""
        asked = await read_request(request, service, ComposeRequest)
        photo = asked.image
        future = engine.compose(photo.content, photo.name, asked.text, text_weight=asked.text_weight)
        query = await service.result(request, future)
        return ComposeResponse(model=service.model_name, embedding=query.tolist())

    @router.post(
        "/explain",
        tags=["model"],
        response_model=ExplainResponse,
        openapi_extra=document(ComposeRequest, {"image": EXAMPLE_PHOTO, "text": "in red with long sleeves"}),
    )
    async def explain(request: Request) -> dict[str, Any]:
        """How much of photo and of text is in the query of /v1/compose, and which words moved it."""
        asked = await read_request(request, service, ComposeRequest)
        photo = asked.image
        future = engine.explain(photo.content, photo.name, asked.text, text_weight=asked.text_weight)
        told = await service.result(request, future)
        return {"model": service.model_name, "embedding": told.query[0].tolist(), **told.to_dict()}

    return router


def _written(row: NDArray[np.float32], encoding: str) -> list[float] | str:
    """One embedding as the response has it."""
    return b64encode(row.astype("<f4").tobytes()).decode() if encoding == "base64" else row.tolist()
