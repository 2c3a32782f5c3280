"""Lists of images: what they read, what they refuse, and that a change is noticed."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from fashion_retrieval.errors import InputError, ShardError
from fashion_retrieval.shards.photo_list import PhotoList


def listed(*sources):
    photos = PhotoList(list(map(str, sources)), 2)
    return [photo for shard in photos.shards() for photo in zip(shard.ids, shard.uris, strict=True)]


def test_photo_list_reads_text_csv_parquet_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("é 1.jpg\r\n\ns3://b/2.jpg", encoding="utf-8")
    (tmp_path / "b.csv").write_text('uri,id\n"x,y.jpg",3\n/z.jpg,4\n', encoding="utf-8")
    parquet.write_table(pa.table({"n": [1, 2], "path": ["5.jpg", "6.jpg"]}), tmp_path / "c.parquet")
    plain = ["é 1.jpg", "s3://b/2.jpg"]
    assert listed(tmp_path / "a.txt", tmp_path / "b.csv", tmp_path / "c.parquet", "7") == [
        *zip(plain, plain, strict=True),
        ("3", "x,y.jpg"),
        ("4", "/z.jpg"),
        *((name, name) for name in ("5.jpg", "6.jpg", "7")),
    ]
    assert listed((tmp_path / "a.txt").as_uri()) == listed(tmp_path / "a.txt")
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name in ("below/b.JPG", "a.png", "notes.md"):
        (tmp_path / "in" / name).touch()
    assert [id for id, _ in listed(tmp_path / "in")] == [f"{tmp_path}/in/a.png", f"{tmp_path}/in/below/b.JPG"]
    (tmp_path / "ü").mkdir()
    (tmp_path / "ü" / "a.png").touch()
    assert [id for id, _ in listed(f"file://{tmp_path}/ü/")] == [f"file://{tmp_path}/ü/a.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "", "expected at least one photo, got none in "),
        ("x.txt", "a.jpg\nb.jpg\nc.jpg\na.jpg\n", "ids must be distinct, got 'a.jpg' twice; name it once"),
        ("x.txt", "a\0b\n", "ids[0] must be a text of 1 to 4096 bytes of UTF-8"),
        ("x.txt", b"\xff\xfe", "must be UTF-8 text"),
        ("x.csv", "name,size\nx,1\n", "must have a column 'uri' or 'path', got 'name, size'"),
        ("x.csv", "id,uri\n7,\n", "must have a text in each row of 'uri', got '' in row 0"),
        ("x.csv", 'uri\n"a.jpg\n', "must be CSV with a header"),
    ],
)
def test_photo_list_with_a_fault_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        listed(tmp_path / name)
    assert message in str(caught.value)


def test_photo_list_of_a_folder_without_a_photo_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path.as_uri()):
        with pytest.raises(
            InputError, match=rf"folder {folder} holds no photo; expected files ending in .avif .avifs .bmp"
        ):
            listed("x.jpg", folder)


@pytest.mark.parametrize(
    "name", ["no.txt", "no.csv", "no.parquet", "file:///no/x.txt", "memory://no/x.txt", "s4://x/y.txt", "s4://x/"]
)
def test_photo_list_that_does_not_exist_is_refused(tmp_path, name):
    with pytest.raises(ShardError, match="can't be used"):
        listed(name if "://" in name else tmp_path / name)


def test_photo_list_that_changes_is_noticed(tmp_path):
    (tmp_path / "x.txt").write_text("a\nb\nc\n")
    photos = PhotoList([str(tmp_path / "x.txt")], 2)
    for changed, kept in (("a\nb\nd\n", 1), ("a\nb\n", 1), ("a\nb\nc\nd\n", 1), ("z\n", 0)):
        (tmp_path / "x.txt").write_text(changed)
        shards = photos.shards()
        assert [next(shards).ids for _ in range(kept)] == [("a", "b")] * kept
        with pytest.raises(ShardError, match="changed while it was encoded"):
            next(shards)
