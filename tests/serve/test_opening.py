"""What is checked before a service starts: names and galleries, keys, the host, sizes."""

import re

import pytest

from fashion_retrieval import Gallery
from fashion_retrieval.errors import GalleryError, InputError
from fashion_retrieval.model import FashionModel
from fashion_retrieval.serve import opening
from fashion_retrieval.serve.opening import (
    check_host,
    check_origins,
    is_loopback,
    open_galleries,
    parse_size,
    read_keys,
)
from tests.support.galleries import tiny_model
from tests.support.tiny import tiny_folder

KEY = "0123456789abcdef"


@pytest.fixture
def shops(tmp_path):
    for name in ("shoes", "coats", "a b"):
        Gallery.create(tmp_path / name, tiny_model()).close()
    return tmp_path


@pytest.fixture
def opened(monkeypatch):
    """Every gallery that was opened, whatever became of it."""
    real, all_of_them = Gallery.open, []
    monkeypatch.setattr(Gallery, "open", lambda *given: all_of_them.append(real(*given)) or all_of_them[-1])
    return all_of_them


def test_open_galleries_names_them(shops):
    galleries = open_galleries([f"winter={shops}/coats", f"{shops}/shoes/", f"x.1-_={shops}/a b"], tiny_model())
    assert list(galleries) == ["winter", "shoes", "x.1-_"]
    assert [gallery.info.uri for gallery in galleries.values()] == [f"{shops}/{n}" for n in ("coats", "shoes", "a b")]
    for gallery in galleries.values():
        gallery.close()
    assert open_galleries([], tiny_model()) == {}


def test_open_galleries_takes_the_folder_it_stands_in(shops, monkeypatch):
    monkeypatch.chdir(shops / "shoes")
    (gallery,) = open_galleries(["."], tiny_model()).items()
    assert gallery[0] == "shoes"
    gallery[1].close()


@pytest.mark.parametrize(
    ("text", "name", "uri"),
    [
        ("http://host:19530/shoes", "shoes", "http://host:19530/shoes"),
        ("s=http://root:se=cret@host/shoes", "s", "http://root:se=cret@host/shoes"),
        ("http://root:se=cret@host/shoes", "shoes", "http://root:se=cret@host/shoes"),
        ("s3://bucket/a=b/shoes/", "shoes", "s3://bucket/a=b/shoes/"),
    ],
)
def test_a_name_is_given_or_the_last_part(text, name, uri):
    assert opening._named(text) == (name, uri)


@pytest.mark.parametrize("text", ["=x", "a b=x", ".=x", "..=x", "x=", "é=x", "", "/", f"{'n' * 65}=x", "a b", "-v=x"])
def test_names_that_are_not_simple_are_refused(text):
    with pytest.raises(InputError, match=r"^a gallery's name must have 1 to 64 letters, .*; write NAME=PATH$"):
        open_galleries([text], tiny_model())


def test_a_password_is_not_in_the_message():
    with pytest.raises(InputError) as caught:
        open_galleries(["http://root:secret@host:1/a b"], tiny_model())
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        open_galleries(["http://root:secret@host:1"], tiny_model())
    assert "secret" not in str(caught.value)


def test_doubles_missing_ones_and_other_models_close_what_was_opened(shops, tmp_path, opened):
    for second, error, words in (
        (f"shoes={shops}/coats", InputError, "got two named 'shoes'"),
        (f"hats={shops}/hats", GalleryError, f"{shops}/hats"),
    ):
        with pytest.raises(error, match=re.escape(words)) as caught:
            open_galleries([f"{shops}/shoes", second], tiny_model())
        assert "\n" not in str(caught.value)
    other = FashionModel.from_pretrained(tiny_folder(tmp_path / "other", seed=1), device="cpu", dtype="float32")
    with pytest.raises(GalleryError, match="holds embeddings of model"):
        open_galleries([f"{shops}/shoes"], other)
    assert [repr(gallery) for gallery in opened] == ["Gallery(closed)", "Gallery(closed)"]


def test_read_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# two keys\n\n{KEY}\n  {KEY}!#$~  \n{KEY}\n")
    assert read_keys(file) == (KEY, f"{KEY}!#$~")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must hold at least one API key"),
        (b"# none\n", "must hold at least one API key"),
        (b"0123456789abcde\n", "line 1 must be an API key of at least 16 visible characters of ASCII, got 15;"),
        (f"{KEY}\n\n{KEY} {KEY}\n".encode(), "line 3 must be an API key"),
        (f"{KEY}é\n".encode(), "line 1 must be an API key"),
        (b"\xff" * 20, "it is no text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_keys_that_cannot_be_used_are_one_line_without_the_key(tmp_path, content, words):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_keys(file)
    assert "\n" not in str(caught.value)
    assert "0123456789" not in str(caught.value)


def test_only_loopback_goes_without_a_key():
    for host in ("127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"):
        assert is_loopback(host)
        check_host(host, ())
    for host in ("0.0.0.0", "", "::", "10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.example.com"):
        check_host(host, (KEY,))
        with pytest.raises(InputError, match=r"got host '.*'; give --api-key-file FILE, or --host 127\.0\.0\.1$"):
            check_host(host, ())


def test_an_origin_is_a_site_alone():
    check_origins(["https://your.shop", "http://localhost:3000"])
    for origin in ("*", "https://your.shop/", "your.shop", "https://*.shop", "https://a@your.shop", ""):
        with pytest.raises(InputError, match="without a path, got"):
            check_origins([origin])


def test_parse_size():
    texts = ("20MB", "20m", "1 KiB", "2GiB", "5000", "7b", " 3 gb ")
    assert [parse_size(text) for text in texts] == [20_000_000, 20_000_000, 1024, 2 << 30, 5000, 7, 3_000_000_000]
    for text in ("", "0", "0MB", "-1", "1.5MB", "MB", "20XB", "1e6", "9" * 13, "²"):
        with pytest.raises(InputError, match="a size must be a whole number with"):
            parse_size(text)
