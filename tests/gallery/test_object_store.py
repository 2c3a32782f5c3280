"""A gallery in a store that speaks S3 over plain http: moto's server, which honors conditional writes as LanceDB's
commits need them."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import numpy as np
import pytest

from fashion_retrieval.errors import GalleryError, ShardError
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.shards.filesystem import Folder
from tests.support.galleries import free_ports, settings, tiny_model

WRITER = """
import sys
import numpy as np
from fashion_retrieval.gallery.engines.base import Row
from fashion_retrieval.gallery.engines.lancedb import LanceStore

store = LanceStore.open(sys.argv[1])
fields = dict.fromkeys(store.settings.fields)
for vector in np.eye(store.settings.embedding_dim, dtype=np.float32)[:4]:
    store.write([Row(f"{sys.argv[2]}{int(vector.argmax())}", vector, "", None, fields)])
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """The address of a server with the bucket "shop" and "shop.photos"."""
    if not (find_spec("moto") and find_spec("flask_cors")):
        remedy = "pip install 'moto[s3]' flask flask-cors"
        pytest.skip(f"NO S3 SERVER, so galleries in an object store are not tested here: {remedy}")
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    with (tmp_path_factory.mktemp("s3") / "log").open("w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _make_buckets(address)
            yield address
        finally:
            server.kill()
            server.wait()


def _make_buckets(address):
    for bucket in ("shop", "shop.photos"):
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT")).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)


@pytest.fixture
def store(endpoint, monkeypatch):
    """The variables of an environment that reach the server, as docs/guides/gallery.md names them."""
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return monkeypatch


def test_gallery_in_an_object_store_is_made_searched_changed_and_opened_again(store):
    generator = np.random.default_rng(0)
    photos = [generator.integers(0, 255, (24, 24, 3), dtype=np.uint8) for _ in range(6)]
    ids = [f"photo {number}" for number in range(6)]
    uri = "s3://shop/made"
    with Gallery.create(uri, tiny_model(), fields={"price": float}) as gallery:
        report = gallery.add(photos, ids, [{"price": float(number)} for number in range(6)])
        assert report.added == 6
        query = gallery.embeddings(["photo 4"])
        assert gallery.search(query, top_k=1)[0].id == "photo 4"
        assert {match.id for match in gallery.search(query, where="price < 2")} == {"photo 0", "photo 1"}
        with pytest.raises(GalleryError, match="there is already a gallery at s3://shop/made"):
            Gallery.create(uri, tiny_model())
    with Gallery.open(uri, tiny_model()) as gallery, Gallery.open(uri, tiny_model()) as other:
        assert len(other) == 6
        assert gallery.delete(["photo 4", "photo 0"]) == 2
        assert {match.id for match in other.search(query)} == {"photo 1", "photo 2", "photo 3", "photo 5"}
        assert gallery.add(photos, ids).added == 2
        gallery.optimize()
        assert len(other.search(query)) == 6
    assert Gallery.peek(uri).count == 6
    with pytest.raises(GalleryError, match="there is no gallery at s3://shop/none"):
        Gallery.open("s3://shop/none", tiny_model())


def test_two_processes_write_to_one_gallery_in_an_object_store(store):
    uri = "s3://shop/shared"
    LanceStore.create(uri, settings())
    command = [sys.executable, "-c", WRITER, uri]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "ab"]
    for writer in writers:
        trouble = writer.communicate(timeout=100)[1]
        assert writer.returncode == 0, trouble
    opened = LanceStore.open(uri)
    assert opened.count() == 8
    found = opened.read([f"{name}{number}" for name in "ab" for number in range(4)])
    assert {id: int(row.vector.argmax()) for id, row in found.items()} == {id: int(id[1]) for id in found}
    assert len(found) == 8


@pytest.mark.parametrize(
    ("unset", "given"),
    [
        ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
    ],
)
def test_gallery_and_shards_reach_a_store_by_the_same_variables(store, endpoint, unset, given):
    store.delenv(unset)
    store.setenv(given, endpoint if "ENDPOINT" in given else "us-east-1")
    for bucket in ("shop", "shop.photos"):
        place = f"s3://{bucket}/{given}"
        LanceStore.create(f"{place}/gallery", settings())
        assert LanceStore.open(f"{place}/gallery").count() == 0
        Folder(f"{place}/shards").write("part", b"x")
        assert Folder(f"{place}/shards").names() == ["part"]


def test_a_store_that_refuses_says_why_in_one_line(store, endpoint):
    with pytest.raises(GalleryError, match="NoSuchBucket") as caught:
        LanceStore.create("s3://nowhere/gallery", settings())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    with pytest.raises(ShardError, match="NO_SUCH_BUCKET"):
        Folder("s3://nowhere/shards").write("part", b"x")
