"""Requests that can't be served, and the status that each must get: the soak mixes them in, the tests ask each."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from io import BytesIO
from urllib.parse import quote

import numpy as np
from PIL import Image

from benchmarks.serve.client import form_request, json_request, request

RECOGNIZE, EMBEDDINGS = "/v1/recognize", "/v1/embeddings"
HOSTILE = (
    "it's",
    'say "no"',
    "back\\slash",
    "a/b",
    "../../etc/passwd",
    "%2F",
    "..%2f..%2fshadow",
    "x" * 3_000,
    "\u202e",
    "*",
)
"""Ids that no gallery has."""


def bad_photos(photo: bytes) -> dict[str, bytes]:
    """Files that are no photo any more, by what is wrong with them; `photo` is a JPEG."""
    floats, header = BytesIO(), struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(floats, "TIFF")
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    png = b"".join(struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    return {
        "zero bytes": b"",
        "truncated": photo[: len(photo) // 2],
        "a part is lost, an end mark behind": photo[: len(photo) * 6 // 10] + b"\xff\xd9",
        "text named .jpg": b"not a photo at all",
        "a page": b"<!doctype html><title>404</title>",
        "HEIC of nothing": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "pixels of unknown meaning": floats.getvalue(),
        "3,600 megapixels": b"\x89PNG\r\n\x1a\n" + png,
    }


def bad_requests(photo: bytes, gallery: str) -> dict[str, tuple[int, bytes]]:
    """Status and request by what is wrong; `photo` is a JPEG that can be read, `gallery` the name of a gallery."""
    good = base64.b64encode(photo).decode()
    search, image = f"/v1/galleries/{gallery}/search", f"/v1/galleries/{gallery}/photos/{{}}/image"

    def recognize(**content: object) -> bytes:
        return json_request(RECOGNIZE, {"photos": [good]} | content)

    def raw(body: bytes, path: str = RECOGNIZE, kind: str | None = "application/json") -> bytes:
        return request("POST", path, body, kind)

    form = form_request(RECOGNIZE, [("photos", "a.jpg", photo)])
    head, _, body = form.partition(b"\r\n\r\n")
    cut = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) // 2))
    values = {f"value {number}": [f"a photo of value {number}"] for number in range(100_000)}
    return {
        **{f"photo, {name}": (422, json_request(RECOGNIZE, {"photos": [base64.b64encode(content).decode()]}))
           for name, content in bad_photos(photo).items()},
        **{f"file, {name}": (422, form_request(RECOGNIZE, [("photos", "a.jpg", content)]))
           for name, content in bad_photos(photo).items()},
        "no body": (400, raw(b"")),
        "no body, no type": (415, raw(b"", kind=None)),
        "wrong type": (415, raw(b"<photo/>", kind="text/xml")),
        "type that is no type": (415, raw(b"{}", kind=";;=;")),
        "no JSON": (400, raw(b'{"photos": [')),
        "JSON that is no UTF-8": (400, raw(b'{"photos": ["\xff\xfe"]}')),
        "deep JSON": (400, raw(b"[" * 200_000)),
        "deep JSON, closed": (400, raw(b"[" * 200_000 + b"]" * 200_000)),
        "NaN in JSON": (422, raw(b'{"photos": ["%b"], "boxes": [[NaN, 0, 5, 5]]}' % good.encode())),
        "infinity in JSON": (422, raw(b'{"photos": ["%b"], "top_k": Infinity}' % good.encode())),
        "a number too large": (422, raw(b'{"photos": ["%b"], "top_k": 1%b}' % (good.encode(), b"0" * 400))),
        "a list in place of an object": (422, json_request(RECOGNIZE, [])),
        "no photos": (422, json_request(RECOGNIZE, {})),
        "an empty list of photos": (422, json_request(RECOGNIZE, {"photos": []})),
        "unknown key": (422, recognize(segmenter="none")),
        "bad base64": (422, json_request(RECOGNIZE, {"photos": ["@@@ not base64 @@@"]})),
        "an address in place of a photo": (422, json_request(RECOGNIZE, {"photos": ["http://127.0.0.1/a.jpg"]})),
        "a path in place of a photo": (422, json_request(RECOGNIZE, {"photos": ["/etc/passwd"]})),
        "data URL of nothing": (422, json_request(RECOGNIZE, {"photos": ["data:image/jpeg;base64,"]})),
        "top_k of 0": (422, recognize(top_k=0)),
        "top_k of a fraction": (422, recognize(top_k=1.5)),
        "box outside the photo": (422, recognize(boxes=[[10_000, 10_000, 10_010, 10_010]])),
        "box with swapped corners": (422, recognize(boxes=[[20, 20, 5, 5]])),
        "box of three numbers": (422, recognize(boxes=[[1, 2, 3]])),
        "box in fractions": (422, recognize(boxes=[[0.1, 0.1, 0.5, 0.5]])),
        "boxes for two photos": (422, recognize(photos=[good, good], boxes=[[1, 1, 20, 20]])),
        "unknown taxonomy": (422, recognize(taxonomy="nowhere")),
        "a taxonomy's path": (422, recognize(taxonomy="/etc/passwd")),
        "a taxonomy with faults": (422, recognize(taxonomy={"categories": 7, "more": []})),
        "a taxonomy of 100,000 values": (422, recognize(taxonomy={"categories": values})),
        "form without a file": (422, form_request(RECOGNIZE, [])),
        "form cut short": (400, cut + b"\r\n\r\n" + body[: len(body) // 2]),
        "form without a boundary": (400, raw(body, kind="multipart/form-data")),
        "form with another boundary": (400, raw(body, kind="multipart/form-data; boundary=other")),
        "text of 1 MB": (422, json_request(EMBEDDINGS, {"input": "red dress " * 100_000})),
        "empty text": (422, json_request(EMBEDDINGS, {"input": "  "})),
        "lone surrogate": (400, raw(b'{"input": "\\ud800 dress"}', EMBEDDINGS)),
        "no input": (422, json_request(EMBEDDINGS, {"model": "compact"})),
        "empty input": (422, json_request(EMBEDDINGS, {"input": []})),
        "tokens in place of texts": (422, json_request(EMBEDDINGS, {"input": [[1, 2, 3]]})),
        "dimensions of 0": (422, json_request(EMBEDDINGS, {"input": "dress", "dimensions": 0})),
        "too many dimensions": (422, json_request(EMBEDDINGS, {"input": "dress", "dimensions": 1_000_000})),
        "unknown encoding": (422, json_request(EMBEDDINGS, {"input": "dress", "encoding_format": "hex"})),
        "nothing to compose": (422, json_request("/v1/compose", {})),
        "text weight of 2": (422, json_request("/v1/compose", {"image": good, "text": "in red", "text_weight": 2})),
        "unknown gallery": (404, json_request("/v1/galleries/nowhere/search", {"text": "dress"})),
        "gallery of hostile name": (404, request("GET", f"/v1/galleries/{quote('../../etc', safe='')}")),
        "nothing to search": (422, json_request(search, {})),
        "bad filter": (422, json_request(search, {"text": "dress", "where": "category = "})),
        "filter with a statement": (422, json_request(search, {"text": "dress", "where": "1 = 1; DROP TABLE photos"})),
        "filter of an unknown field": (422, json_request(search, {"text": "dress", "where": "nothing = 'x'"})),
        "huge top_k": (422, json_request(search, {"text": "dress", "top_k": 10**9})),
        "huge offset": (422, json_request(search, {"text": "dress", "offset": 10**9})),
        "negative offset": (422, json_request(search, {"text": "dress", "offset": -1})),
        "too many ids to exclude": (422, json_request(search, {"text": "dress", "exclude": ["x"] * 20_000})),
        "search by an unknown id": (404, json_request(search, {"id": "nobody"})),
        "unknown route": (404, request("GET", "/v1/nothing")),
        "path out of the service": (404, request("GET", "/../../etc/passwd")),
        "wrong method": (405, request("GET", RECOGNIZE)),
        "method of no address": (405, request("PATCH", RECOGNIZE, b"{}", "application/json")),
        "foreign Host": (403, json_request(EMBEDDINGS, {"input": "dress"}, Host="evil.example")),
        "foreign Origin": (403, json_request(EMBEDDINGS, {"input": "dress"}, Origin="https://evil.example")),
        "1 GB claimed": (413, request("POST", RECOGNIZE, kind="application/json", Content_Length=str(10**9))),
        **{f"image of {name[:20]!r}": (404, request("GET", image.format(quote(name, safe="")))) for name in HOSTILE},
    }  # fmt: skip


def problem_of(status: int, headers: dict[str, str], body: bytes) -> str:
    """What is wrong with a problem document (RFC 9457); "" if nothing is."""
    if headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        return f"content type {headers.get('content-type')}"
    document = json.loads(body)
    if document.get("status") != status or not {"type", "title", "detail"} <= document.keys():
        return f"not a problem document: {document}"
    told = str(document)
    leaks = [word for word in ("Traceback", 'File "', "site-packages", "/home", "/root", "/tmp", ".py") if word in told]
    return f"it tells {leaks}: {told:.300}" if leaks or "\n" in document["detail"] else ""
