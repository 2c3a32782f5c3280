"""The body of a request, JSON or multipart, as the request that its route expects."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from fashion_retrieval.serve.problems import RequestError
from fashion_retrieval.serve.requests import Asked, Upload

if TYPE_CHECKING:
    from fashion_retrieval.serve.state import Service

Expected = TypeVar("Expected", bound=Asked)

_MOST_FIELDS = 1_000
_LISTS = ("photos", "ids")
"""Fields that a form may repeat."""


async def read_request(request: Request, service: Service, expected: type[Expected]) -> Expected:
    """Read a body and check it.

    Raises:
        RequestError: It is too large, too slow, cut off or of another type.
        ValidationError: It is not what was expected; all faults are named.
    """
    service.check_free()  # before the body is read: a full queue refuses early
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind not in (b"application/json", b"multipart/form-data"):
        got = kind.decode("latin-1") or "none"
        raise RequestError(415, f"content-type must be application/json or multipart/form-data, got {got:.80}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "a body must not be compressed; leave Content-Encoding out")
    if kind == b"application/json":
        return await service.read_body(request, partial(_from_json, expected=expected))
    boundary = options.get(b"boundary", b"")
    return await service.read_body(request, partial(_from_form, boundary=boundary, expected=expected))


def document(expected: type[BaseModel], example: dict[str, Any], *, form: bool = True) -> dict[str, Any]:
    """What the OpenAPI page tells of a route that reads its body with `read_request`."""
    schema = expected.model_json_schema()
    definitions = schema.pop("$defs", {})
    inlined = _inlined(schema, definitions)
    content: dict[str, Any] = {"application/json": {"schema": inlined, "example": example}}
    if form:
        content["multipart/form-data"] = {"schema": _as_form(inlined)}
    return {"requestBody": {"required": True, "content": content}}


def _from_json(body: bytes, expected: type[Expected]) -> Expected:
    if not body.strip():
        raise RequestError(400, "a body in JSON is needed, got none; /docs has an example")
    return expected.model_validate_json(body, strict=True)


def _from_form(body: bytes, boundary: bytes, expected: type[Expected]) -> Expected:
    given: dict[str, Any] = {}
    complete = False

    def add(name: bytes | None, value: object) -> None:
        key = (name or b"").decode("utf-8", "replace")
        if key in _LISTS:
            given.setdefault(key, []).append(value)
            if len(given[key]) > _MOST_FIELDS:  # the parser's own limit is for other forms
                raise RequestError(422, f"the form may have {_MOST_FIELDS} {key}, got more; send several requests")
        elif key in given:
            raise RequestError(400, f"the form's field {key!r:.80} may stand there once")
        else:
            given[key] = value

    def on_field(field: Field) -> None:
        try:
            add(field.field_name, (field.value or b"").decode())
        except UnicodeDecodeError as error:
            raise RequestError(400, "the form's fields must be texts in UTF-8; encode them so") from error

    def on_file(file: File) -> None:
        name = (file.file_name or b"").decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        file.file_object.seek(0)
        add(file.field_name, Upload(file.file_object.read(), name[:160] or "the photo"))
        file.close()

    def on_end() -> None:
        nonlocal complete
        complete = True

    limits = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}  # no file goes to the disk
    try:
        parser = FormParser("multipart/form-data", on_field, on_file, on_end, boundary=boundary, config=limits)
        try:
            parser.write(body)
            parser.finalize()
        finally:
            parser.parser.callbacks.clear()  # type: ignore[union-attr]  # parser and callbacks hold each other, and files
    except FormParserError as error:
        raise RequestError(400, f"the form can't be read ({error}); send multipart/form-data") from error
    if not complete:
        raise RequestError(400, "the form ended too early; send it again")
    ids = given.get("ids", [])
    if len(ids) == 1 and isinstance(ids[0], str) and ids[0].lstrip().startswith("["):
        given["ids"] = ids[0]  # a list in JSON
    return expected.model_validate(given)


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _as_form(schema: dict[str, Any]) -> dict[str, Any]:
    """The same in a form: photos are files, lists and objects are texts in JSON, and nothing is null."""
    fields = {}
    for name, field in schema["properties"].items():
        binary = {"type": "string", "format": "binary"}
        if name == "photos":
            fields[name] = {"type": "array", "items": binary, "minItems": 1, "maxItems": field.get("maxItems", 64)}
        elif name == "image":
            fields[name] = binary
        else:
            fields[name] = _as_field(name, field)
    return {**schema, "properties": fields}


def _as_field(name: str, field: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    told = {key: value for key, value in field.items() if key in ("title", "description", "examples")}
    if any(kind.get("type") in ("array", "object") for kind in kinds):
        in_json = {"type": "string", "contentMediaType": "application/json"}
        return told | ({"anyOf": [field, in_json]} if name in _LISTS else in_json)
    return {key: value for key, value in {**kinds[0], **told}.items() if key != "default"}
