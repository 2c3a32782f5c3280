"""A small object store that speaks S3: objects are listed, read, and written in one piece or in parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "2026-01-01T00:00:00.000Z"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        if "list-type" in self._query:
            return self._list()
        if self._key not in self._objects:
            return self._answer(200 if "/" not in self._key and "$" not in self._key else 404)
        content, span = self._objects[self._key], self.headers.get("Range")
        if span is None:
            return self._answer(200, content)
        first, _, last = span.removeprefix("bytes=").partition("-")
        return self._answer(206, content[int(first) : int(last) + 1])

    do_HEAD = do_GET

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "partNumber" in self._query:
            self.server.parts[self._key, int(self._query["partNumber"][0])] = body
        else:
            self._objects[self._key] = body
        self._answer(200)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in self._query:
            return self._answer(200, b"<R><UploadId>1</UploadId></R>")
        numbers = sorted(number for key, number in self.server.parts if key == self._key)
        self._objects[self._key] = b"".join(self.server.parts.pop((self._key, number)) for number in numbers)
        return self._answer(200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def _list(self):
        start = f"{self._key}/{self._query.get('prefix', [''])[0]}"
        found = sorted(key for key in self._objects if key.startswith(start))
        lines = "".join(
            f"<Contents><Key>{escape(key.partition('/')[2])}</Key><Size>{len(self._objects[key])}</Size>"
            f"<LastModified>{_DATE}</LastModified></Contents>"
            for key in found
        )
        self._answer(200, f"<R><IsTruncated>false</IsTruncated>{lines}</R>".encode())

    def _answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def _key(self):
        return unquote(urlsplit(self.path).path).strip("/")

    @property
    def _query(self):
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    @property
    def _objects(self):
        return self.server.objects


@contextmanager
def serving() -> Iterator[tuple[dict[str, bytes], dict[str, str]]]:
    """The objects by "bucket/key", and the environment by which a client finds the store."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.objects, server.parts, server.daemon_threads = {}, {}, True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield (
            server.objects,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
                "AWS_REGION": "local",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",  # else bodies come in chunks with a trailer
            },
        )
        server.shutdown()
        thread.join()
