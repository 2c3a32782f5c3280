"""Errors over HTTP: problem documents (RFC 9457) with the library's one line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from fashion_retrieval.errors import FashionRetrievalError, GalleryError
from fashion_retrieval.serve.engine import BusyError, forget

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was not answered, or one of its photos."""

    type: str = Field("about:blank", description="Always about:blank: status and detail say it all.")
    title: str = Field(description="The status in words.", examples=["Unprocessable Content"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="One line: what was expected, what came, the remedy.")


class RequestError(FashionRetrievalError, ValueError):
    """A request that is refused with this status and these headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


def problem_of(error: BaseException) -> Problem:
    """The problem document of an error; of one that nobody expected it tells nothing."""
    if isinstance(error, RequestError):
        return _problem(error.status, str(error))
    if isinstance(error, BusyError):
        return _problem(503, str(error))
    if isinstance(error, GalleryError):
        return _problem(503, "the gallery can't be used now; the server's log says why")
    if isinstance(error, FashionRetrievalError):
        return _problem(422, str(error))
    if isinstance(error, ValidationError | RequestValidationError):
        faults = error.errors()
        malformed = any(fault["type"] == "json_invalid" for fault in faults)
        return _problem(400 if malformed else 422, "; ".join(map(_fault, faults)))
    return _problem(500, "an error that nobody expected; the server's log says more")


def answer(error: BaseException) -> JSONResponse:
    """The response for an error; what is no fault of the client's is logged."""
    problem = problem_of(error)
    if problem.status == 500 or isinstance(error, GalleryError):
        _log.error("a request failed", exc_info=error)
    forget(error)
    headers = error.headers if isinstance(error, RequestError) else {}
    if problem.status == 503:
        headers = {"Retry-After": "1", **headers}
    return JSONResponse(problem.model_dump(), problem.status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of an app's routes a problem document."""

    async def from_routing(request: Request, error: Exception) -> JSONResponse:
        status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
        expected = {404: "no such address; /docs lists them", 405: "this address takes another method; see /docs"}
        if status == 405 and (methods := _methods(request)):
            headers = {"Allow": methods}
        return answer(RequestError(status, expected.get(status, HTTPStatus(status).phrase), headers))

    async def from_library(_: Request, error: Exception) -> JSONResponse:
        return answer(error)

    app.add_exception_handler(HTTPException, from_routing)
    for kind in (FashionRetrievalError, ValidationError, RequestValidationError, Exception):
        app.add_exception_handler(kind, from_library)


def _problem(status: int, detail: str) -> Problem:
    return Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)


def _methods(request: Request) -> str | None:
    """The methods of an address as the OpenAPI page has them; starlette tells those of its first route alone."""
    path = getattr(request.scope.get("route"), "path_format", None)
    known = request.app.openapi()["paths"].get(path, {})
    return ", ".join(method.upper() for method in known) or None


def _fault(fault: Mapping[str, object]) -> str:
    place = ".".join(map(str, fault["loc"] if isinstance(fault["loc"], tuple) else ())) or "the request"
    return f"{place}: {str(fault['msg']).removeprefix('Value error, ')}"
