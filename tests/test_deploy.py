"""What the guide to deployment gives: Dockerfile, compose file, and nginx's configuration in front of an upstream."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import httpx
import pytest
import yaml

from tests.support.paths import ROOT

GUIDE = (ROOT / "docs/guides/deploy.md").read_text(encoding="utf-8")
IMAGE = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")
"""A name with a version; no "latest"."""


def instructions():
    """The Dockerfile as (word, rest) pairs, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_is_pinned_has_a_user_a_health_check_and_no_secret():
    found = instructions()
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert len(bases) == 2
    assert all(IMAGE.fullmatch(base) for base in bases)
    last = found[max(place for place, (word, _) in enumerate(found) if word == "FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["10001"]
    assert [rest for word, rest in last if word == "ENTRYPOINT"] == ['["fashion-retrieval", "serve"]']
    assert [rest for word, rest in last if word == "EXPOSE"] == ["8000"]
    assert not [rest for word, rest in last if word == "RUN" and "pip" in rest]
    (check,) = [json.loads(rest.partition(" CMD ")[2]) for word, rest in last if word == "HEALTHCHECK"]
    assert check[:2] == ["python", "-c"]
    compile(check[2], "health", "exec")
    settings = dict(pair.split("=", 1) for word, rest in last if word == "ENV" for pair in rest.split())
    assert settings["FASHION_RETRIEVAL_HOST"] == "0.0.0.0"
    assert settings["FASHION_RETRIEVAL_API_KEY_FILE"].startswith("/run/secrets/")
    assert not re.search("key=|token|password", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.IGNORECASE)


def test_the_health_check_fails_where_nobody_listens():
    (check,) = [json.loads(rest.partition(" CMD ")[2]) for word, rest in instructions() if word == "HEALTHCHECK"]
    with upstream() as address:
        for port, expected in ((address.rpartition(":")[2], 0), ("1", 1)):
            call = [shutil.which("python"), *check[1:]]
            done = subprocess.run(call, env={"FASHION_RETRIEVAL_PORT": port}, capture_output=True, check=False)
            assert done.returncode == expected


def test_the_image_takes_the_extras_that_there_are():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert not [extra for extra in extras.split(",") if not re.search(rf"^{extra} = \[", project, re.M)]


def test_only_what_is_built_from_reaches_the_builder():
    copies = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == set().union(*copies)


def test_compose_pins_its_images_and_shows_only_the_service_to_this_computer(tmp_path):
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"milvus", "index", "service"}
    assert IMAGE.fullmatch(services["milvus"]["image"])
    assert [services[name].get("ports") for name in services] == [None, None, ["127.0.0.1:8000:8000"]]
    for name in ("index", "service"):
        assert services[name]["user"] == "10001"
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
    assert {name: one.get("restart") for name, one in services.items() if name != "index"} == {
        "milvus": "unless-stopped",
        "service": "unless-stopped",
    }
    assert services["service"]["secrets"] == ["api_keys"]
    docker = shutil.which("docker")
    if docker and not subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        call = [docker, "compose", "-f", ROOT / "compose.yaml", "--project-directory", tmp_path, "config", "--quiet"]
        subprocess.run(call, check=True)


class Answers(BaseHTTPRequestHandler):
    """Tells the headers that came, and at /stream the second half only after the first was read."""

    protocol_version = "HTTP/1.1"
    go_on = Event()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        parts = [json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()]
        for number, part in enumerate([b"first", b"second"] if self.path == "/stream" else parts):
            if number:
                self.go_on.wait(10)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def upstream():
    """The address of a server that stands for the service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """A client of nginx with the guide's configuration; ports, name and certificate are this computer's."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx or not shutil.which("openssl"):
        pytest.skip("NO NGINX OR NO OPENSSL, so the guide's configuration is not run")
    folder = tmp_path_factory.mktemp("nginx")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    call = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(call, check=True, capture_output=True)
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", GUIDE, re.M | re.S)
    plain, secure = free_port(), free_port()
    with upstream() as address:
        for before, after in (
            ("listen 80;", f"listen 127.0.0.1:{plain};"),
            ("listen 443 ", f"listen 127.0.0.1:{secure} "),
            ("/etc/letsencrypt/live/fashion.example.com", str(folder)),
            ("fashion.example.com", "localhost"),
            ("127.0.0.1:8000", address),
            ("127.0.0.1:8001", address),
        ):
            assert before in block
            block = block.replace(before, after)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = [f"{kind}_temp_path {folder}/{kind};" for kind in kinds]
        user = "" if os.geteuid() else "user root; "
        head = f"{user}pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ access_log off;\n"
        (folder / "nginx.conf").write_text(head + "\n".join(temporary) + "\n" + block + "}\n")
        run = [nginx, "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"]
        checked = subprocess.run([*run, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "warn" not in checked.stderr
        with subprocess.Popen([*run, "-g", "daemon off;"]) as process:
            trusted = ssl.create_default_context(cafile=folder / "fullchain.pem")
            client = httpx.Client(base_url=f"https://localhost:{secure}", verify=trusted, trust_env=False, timeout=20)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", secure)).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None, (folder / "error.log").read_text()
                    time.sleep(0.02)
            yield client, plain
            client.close()
            process.terminate()


def test_nginx_tells_the_service_who_asked_and_how(proxy):
    client, _ = proxy
    found = client.get("/v1/models", headers={"X-Forwarded-For": "10.0.0.1", "Authorization": "Bearer k"}).json()
    assert (found["x-forwarded-for"], found["x-forwarded-proto"]) == ("127.0.0.1", "https")
    assert (found["host"], found["authorization"]) == (client.base_url.netloc.decode(), "Bearer k")
    assert "connection" not in found


def test_nginx_refuses_large_bodies_itself(proxy):
    client, _ = proxy
    statuses = [client.post("/v1/recognize", content=bytes(size)).status_code for size in (20 << 20, (20 << 20) + 1)]
    assert statuses == [200, 413]
    assert client.post("/mcp", content=bytes((20 << 20) + 1)).status_code == 200


def test_nginx_passes_an_answer_on_bit_by_bit(proxy):
    client, _ = proxy
    Answers.go_on.clear()
    with client.stream("GET", "/stream") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        Answers.go_on.set()
        assert b"".join(parts) == b"second"


def test_nginx_leads_to_tls_and_closes_the_metrics(proxy):
    client, plain = proxy
    moved = httpx.get(f"http://127.0.0.1:{plain}/docs?a=1", headers={"Host": "localhost"}, trust_env=False)
    assert (moved.status_code, moved.headers["location"]) == (301, "https://localhost/docs?a=1")
    answer = client.get("/metrics")
    assert (answer.status_code, "max-age" in answer.headers["strict-transport-security"]) == (403, True)


def test_nginx_lets_the_page_load_all_its_files_at_once(proxy):
    client, _ = proxy
    Answers.go_on.clear()
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(client.get, "/stream") for _ in range(60)]
        time.sleep(0.3)
        Answers.go_on.set()
        assert {answer.result().status_code for answer in answers} == {200}


def test_nginx_bounds_what_one_visitor_asks(proxy):
    """The API lets 20 at once through, then 10 a second; the page's own files are not counted."""
    client, _ = proxy
    time.sleep(2.2)  # what the tests before asked is forgotten
    statuses = [client.get("/v1/models").status_code for _ in range(60)]
    assert statuses[:20] == [200] * 20
    assert 429 in statuses
    assert {client.get("/").status_code for _ in range(60)} == {200}
