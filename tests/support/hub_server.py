"""A Hugging Face Hub on 127.0.0.1: as much of its HTTP protocol as downloads and uploads of models need.

Repositories live in memory. The server counts every request and every body byte it sends, answers with the Hub's own
status codes and error headers, and can cut a connection in the middle of a file, on its way down or up.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_reader"
WRITE_TOKEN = "hf_writer"
OWNER = "house"
"""Whose repositories `WRITE_TOKEN` may write."""


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def git_oid(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data)


@dataclass
class Repository:
    """Commits (files by name) and branches of one repository."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes], *, branch: str = "main", message: str = "") -> str:
        """Add a commit with these files over the branch's own; returns its id."""
        tree = self.commits.get(self.branches.get(branch, ""), {}) | dict(files)
        listing = "".join(f"{name}:{sha1(data)}\n" for name, data in sorted(tree.items()))
        oid = sha1(f"{len(self.commits)}\n{listing}".encode())
        self.commits[oid] = tree
        self.branches[branch] = oid
        self.messages.append(message)
        return oid

    def find(self, revision: str) -> str | None:
        """Commit id of a branch or of itself."""
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    range: str | None
    token: str | None


class HubServer:
    """Runs in a thread; `with HubServer() as hub: hub.url`."""

    def __init__(self) -> None:
        self.repositories: defaultdict[str, Repository] = defaultdict(Repository)
        self.requests: list[Request] = []
        self.served: Counter[str] = Counter()
        """Body bytes sent, by file name."""
        self.cuts: dict[str, list[int]] = {}
        """File name -> for each of the coming GETs, after how many bytes the connection is cut."""
        self.upload_cuts: dict[str, list[int]] = {}
        """SHA-256 of a large file -> for each of its coming PUTs, after how many body bytes the connection is cut."""
        self.card_errors: list[str] = []
        """What the check of a model card's metadata finds."""
        self.status: int | None = None
        """When set, every request is answered with it."""
        self.lfs: dict[str, bytes] = {}
        """Uploaded large files by sha256."""
        self.parts: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        self.part_size = 1000
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop answering; connections are refused from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def gets(self, name: str) -> list[Request]:
        """GET requests for a file."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(f"/{name}")]


class _Refused(Exception):
    def __init__(self, status: int, *, code: str = "", message: str = "", url: str = "") -> None:
        self.status = status
        self.body = {"error": message, "url": url}
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_GET(self) -> None:
        self._dispatch()

    def do_HEAD(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def log_message(self, *_: object) -> None:
        pass

    def _dispatch(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), token))
        self.token = token
        if self.command == "PUT" and (cuts := self.hub.upload_cuts.get(path.split("/")[2])):
            self.rfile.read(cuts.pop(0))
            self.close_connection = True
            return
        self.body = self._read_body()
        try:
            if self.hub.status is not None:
                raise _Refused(self.hub.status)
            for method, pattern, handle in _ROUTES:
                match = re.fullmatch(pattern, path)
                if self.command in method and match:
                    handle(self, **match.groupdict())
                    return
            raise _Refused(404, message="no such page")
        except _Refused as refusal:
            self._send(json.dumps(refusal.body).encode(), status=refusal.status, headers=refusal.headers)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, data: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | dict(headers or {})).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data)

    def _send_json(self, data: object, *, status: int = 200) -> None:
        self._send(json.dumps(data).encode(), status=status, headers={"Content-Type": "application/json"})

    def _authorise(self, repo: str, *, write: bool) -> None:
        if self.token not in (None, TOKEN, WRITE_TOKEN):
            raise _Refused(401, message="Invalid credentials in Authorization header")
        if write and (self.token != WRITE_TOKEN or not repo.startswith(f"{OWNER}/")):
            raise _Refused(401 if self.token is None else 403, message="You don't have the required permissions")

    def _repository(self, repo: str, *, write: bool = False) -> Repository:
        self._authorise(repo, write=write)
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and self.token is None):
            if self.token is None:
                raise _Refused(401, message="Invalid username or password.")
            raise _Refused(404, code="RepoNotFound", message="Repository not found")
        return found

    def _commit(self, repository: Repository, revision: str) -> str:
        oid = repository.find(revision)
        if oid is None:
            raise _Refused(404, code="RevisionNotFound", message=f"Invalid rev id: {revision}")
        return oid

    def model(self, repo: str, revision: str | None = None) -> None:
        repository = self._repository(repo)
        oid = self._commit(repository, revision or "main")
        siblings = [{"rfilename": name} for name in sorted(repository.commits[oid])]
        self._send_json({"id": repo, "modelId": repo, "sha": oid, "private": False, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        repository = self._repository(repo)
        files = repository.commits[self._commit(repository, revision)]
        self._send_json([_tree_entry(name, data) for name, data in sorted(files.items())])

    def file(self, repo: str, revision: str, name: str) -> None:
        repository = self._repository(repo)
        if repository.gated:
            raise _Refused(401 if self.token is None else 403, code="GatedRepo", message="Access is restricted")
        oid = self._commit(repository, revision)
        data = repository.commits[oid].get(name)
        if data is None:
            raise _Refused(404, code="EntryNotFound", message="Entry not found")
        etag = hashlib.sha256(data).hexdigest() if _mode(name) == "lfs" else sha1(data)
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            self._send(data, headers=headers)
        else:
            self._send_file(name, data, headers)

    def _send_file(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        cuts = self.hub.cuts.get(name)
        length = min(cuts.pop(0), len(data) - start) if cuts else len(data) - start
        self.hub.served[name] += length
        headers = headers | {"Content-Length": str(len(data) - start)}
        self._send(data[start : start + length], status=206 if start else 200, headers=headers)

    def create(self) -> None:
        request = json.loads(self.body)
        repo = f"{request['organization']}/{request['name']}"
        self._authorise(repo, write=True)
        url = f"{self.hub.url}/{repo}"
        if repo in self.hub.repositories:
            raise _Refused(409, message="You already created this model repo", url=url)
        private = request.get("visibility") == "private" or bool(request.get("private"))
        self.hub.repositories[repo] = Repository(private=private)
        self.hub.repositories[repo].commit({})
        self._send_json({"url": url})

    def branch(self, repo: str, name: str) -> None:
        repository = self._repository(repo, write=True)
        if name in repository.branches:
            raise _Refused(409, message="Reference already exists")
        repository.branches[name] = repository.branches["main"]
        self._send_json({})

    def validate(self) -> None:
        errors = [{"message": message} for message in self.hub.card_errors]
        self._send_json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def preupload(self, repo: str, revision: str) -> None:
        repository = self._repository(repo, write=True)
        files = repository.commits[self._commit(repository, revision)]
        paths = [item["path"] for item in json.loads(self.body)["files"]]
        entries = {name: _tree_entry(name, data) for name, data in files.items()}
        self._send_json({"files": [_upload_mode(path, entries.get(path, {})) for path in paths]})

    def lfs_batch(self, repo: str) -> None:
        self._repository(repo, write=True)
        self._send_json(
            {"transfer": "multipart", "objects": [self._lfs_actions(o) for o in json.loads(self.body)["objects"]]}
        )

    def _lfs_actions(self, item: dict[str, Any]) -> dict[str, Any]:
        oid, size, step = item["oid"], item["size"], self.hub.part_size
        if oid in self.hub.lfs:
            return {"oid": oid, "size": size}
        base = f"{self.hub.url}/lfs/{oid}"
        actions: dict[str, Any] = {"upload": {"href": base}, "verify": {"href": f"{base}/verify"}}
        if size > step:
            parts = {str(n): f"{base}/{n}" for n in range(1, -(-size // step) + 1)}
            actions["upload"]["header"] = {"chunk_size": str(step)} | parts
        return {"oid": oid, "size": size, "actions": actions}

    def lfs_put(self, oid: str, part: str | None = None) -> None:
        self.hub.parts[oid][int(part or 1)] = self.body
        if part is None:
            self._join(oid)
        self._send(b"", headers={"ETag": sha1(self.body)})

    def lfs_complete(self, oid: str) -> None:
        assert [part["partNumber"] for part in json.loads(self.body)["parts"]] == sorted(self.hub.parts[oid])
        self._join(oid)
        self._send_json({})

    def _join(self, oid: str) -> None:
        data = b"".join(data for _, data in sorted(self.hub.parts[oid].items()))
        if hashlib.sha256(data).hexdigest() != oid:
            raise _Refused(400, message="the digest differs")
        self.hub.lfs[oid] = data

    def lfs_verify(self, oid: str) -> None:
        if len(self.hub.lfs.get(oid, b"")) != json.loads(self.body)["size"]:
            raise _Refused(400, message="the size differs")
        self._send_json({})

    def commit(self, repo: str, revision: str) -> None:
        repository = self._repository(repo, write=True)
        self._commit(repository, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        files = dict(self._added(lines))
        oid = repository.commit(files, branch=revision, message=message)
        url = f"{self.hub.url}/{repo}/commit/{oid}"
        self._send_json({"success": True, "commitOid": oid, "commitUrl": url})

    def _added(self, lines: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                yield value["path"], base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise _Refused(400, message="a large file was not uploaded")
                yield value["path"], self.hub.lfs[value["oid"]]


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".bin", ".onnx")) else "regular"


def _upload_mode(path: str, entry: dict[str, Any]) -> dict[str, Any]:
    """How a file is to be sent, and the digest of the one that is there."""
    oid = entry["lfs"]["oid"] if "lfs" in entry else entry.get("oid")
    return {"path": path, "uploadMode": _mode(path), "shouldIgnore": False, "oid": oid}


def _tree_entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
    if _mode(name) == "lfs":
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", rf"/api/models/{_REPO}", _Handler.model),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>.+)", _Handler.model),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("HEAD GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.file),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<name>.+)", _Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", _Handler.lfs_put),
    ("PUT", r"/lfs/(?P<oid>\w+)/(?P<part>\d+)", _Handler.lfs_put),
    ("POST", r"/lfs/(?P<oid>\w+)", _Handler.lfs_complete),
    ("POST", r"/lfs/(?P<oid>\w+)/verify", _Handler.lfs_verify),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)", _Handler.commit),
)
