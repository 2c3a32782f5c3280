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
from fashion_retrieval.serve.engine import BusyError

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
_LONGEST, _MOST_FAULTS = 2_000, 20
"""Letters of a detail, and faults that it tells one by one."""
_FAULTS = {"extra_forbidden": "there is no such field; /docs lists those there are", "missing": "this field is needed"}


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
        if isinstance(error, ValidationError) and error.error_count() > _MOST_FAULTS:  # to list them costs seconds
            return _problem(422, f"the request has {error.error_count()} faults; /docs has an example")
        faults = error.errors()
        malformed = any(fault["type"] == "json_invalid" for fault in faults)
        return _problem(400 if malformed else 422, "; ".join(map(_fault, faults)))
    return _problem(500, "an error that nobody expected; the server's log says more")


def answer(error: BaseException) -> JSONResponse:
    """The response for an error; what is no fault of the client's is logged."""
    problem = problem_of(error)
    if problem.status == 500 or isinstance(error, GalleryError):
        _log.error("a request failed", exc_info=error)
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
    title = HTTPStatus(status).phrase
    return Problem(type="about:blank", title=title, status=status, detail=_one_line(detail))


def _one_line(text: str) -> str:
    """A text that may hold what a client sent: without breaks, what can't be shown and what is too long."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[:_LONGEST].split()))
    return f"{shown} …" if len(text) > _LONGEST else shown


def _methods(request: Request) -> str | None:
    """The methods of an address as the OpenAPI page has them; starlette tells those of its first route alone."""
    path = getattr(request.scope.get("route"), "path_format", None)
    known = request.app.openapi()["paths"].get(path, {})
    return ", ".join(method.upper() for method in known) or None


def _fault(fault: Mapping[str, object]) -> str:
    parts = map(str, fault["loc"] if isinstance(fault["loc"], tuple) else ())
    place = ".".join(part for part in parts if "[" not in part) or "the request"  # not pydantic's names of types
    told = _FAULTS.get(str(fault["type"]), str(fault["msg"]).removeprefix("Value error, "))
    return f"{place}: {told}"
