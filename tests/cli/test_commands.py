"""The command: arguments, outputs, exit statuses, with a drawn model."""

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fashion_retrieval
from fashion_retrieval import Failure, Garment, Recognition, Taxonomy
from fashion_retrieval.cli import app, encode
from fashion_retrieval.cli.photos import find_photos
from fashion_retrieval.errors import ImageError, InputError, ModelNotFoundError
from fashion_retrieval.results import Attribute, Color, Encoded, Score
from tests.support.tiny import drawn_photo, photo_folder, tree


class DrawnModel:
    """Finds one blue dress in every photo but in those called `nothing`; its embeddings count the photos."""

    model_id = "drawn"
    embedding_dim = 4
    config = None
    calls: list[dict]

    @classmethod
    def from_pretrained(cls, id_or_path="compact", *, revision=None, device="auto", dtype="auto", backend="auto"):
        if id_or_path not in {"compact", "drawn"}:
            raise ModelNotFoundError(f"no model {id_or_path!r};\nexpected 'compact'")
        model = cls()
        cls.calls = [{"device": device, "dtype": dtype}]
        return model

    def recognize(self, image, **options):
        self.calls.append(options)
        width, height = self._size(image)
        return Recognition(width, height, self._garments(Path(image), width, height), self.model_id, Path(image).name)

    def recognize_many(self, images, *, batch_size, on_error, **options):
        self.calls.append({"batch_size": batch_size, **options})
        for index, image in enumerate(images):
            try:
                yield self.recognize(image)
            except ImageError as error:
                if on_error == "raise":
                    raise
                yield Failure(index, Path(image).name, error)

    def recognizer(self, taxonomy=None):
        return SimpleNamespace(taxonomy=Taxonomy.load(taxonomy or "default"))

    def encode(self, *, texts, batch_size=32, progress=False, dimensions=None, precision="float32"):
        return np.array([[len(text)] * 4 for text in texts], dtype=np.float32)

    def encode_iter(self, images, *, batch_size, on_error, max_pixels, dimensions=None, precision="float32"):
        self.calls.append({"batch_size": batch_size, "max_pixels": max_pixels})
        for index, image in enumerate(images):
            try:
                yield Encoded(index, np.full(4, self._size(image)[0], dtype=np.float32), None)
            except ImageError as error:
                if on_error == "raise":
                    raise
                yield Encoded(index, Failure(index, Path(image).name, error), None)

    def _size(self, path):
        try:
            with Image.open(path) as photo:
                return photo.size
        except OSError as error:
            raise ImageError(f"photo {path} can't be read;\nsend another") from error

    def _garments(self, path, width, height):
        if path.stem == "nothing":
            return ()
        mask = np.zeros((height, width), dtype=bool)
        mask[2:8, 1:5] = True
        attributes = {
            "sleeve": Attribute("sleeve", "long_sleeve", 0.9),
            "neckline": Attribute("neckline", None, 0.7, "not_visible"),
        }
        best = Score("dress", 0.875)
        colors = (Color("blue", "#102080", 0.8),)
        return (
            Garment(
                (1, 2, 5, 8),
                mask,
                0.5,
                "dress",
                category=best,
                categories=(best,),
                attributes=attributes,
                colors=colors,
            ),
        )


@pytest.fixture
def cli(monkeypatch):
    monkeypatch.setitem(vars(fashion_retrieval), "FashionModel", DrawnModel)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def photos(tmp_path):
    return photo_folder(tmp_path / "photos")


def test_recognize_shows_a_table(cli, photos):
    done = cli("recognize", photos / "a.png", photos / "nothing.png")
    assert done.exit_code == 0
    assert done.stderr == ""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert [row[1:] for row in rows] == [
        ["1", "dress", "0.88", "blue", "long sleeve 0.90"],
        ["", "nothing found", "", "", ""],
    ]
    assert "photo" in done.stdout
    assert "attributes" in done.stdout


def test_recognize_shows_names_as_they_are(cli, photos):
    odd = photos / "[red]x.png"
    drawn_photo().save(odd)
    assert "[red]x.png" in cli("recognize", odd).stdout


def test_recognize_json_is_a_line_per_photo(cli, photos):
    done = cli("recognize", photos, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["source"] for line in lines] == [str(photo) for photo in find_photos([str(photos)])[0]]
    assert [len(line["garments"]) for line in lines] == [1, 1, 1, 0]
    assert lines[0]["garments"][0]["box"] == [1.0, 2.0, 5.0, 8.0]
    assert "mask" not in lines[0]["garments"][0]


def test_recognize_masks_are_run_lengths(cli, photos):
    done = cli("recognize", photos / "a.png", "--json", "--masks")
    mask = json.loads(done.stdout)["garments"][0]["mask"]
    assert mask["size"] == [64, 48]
    assert mask["counts"][:4] == [66, 6, 58, 6]
    assert sum(mask["counts"]) == 48 * 64


def test_recognize_csv_is_a_row_per_garment(cli, photos):
    rows = list(csv.DictReader(io.StringIO(cli("recognize", photos, "--csv").stdout)))
    assert len(rows) == 3
    assert rows[0] == {
        "photo": str(photos / "a.png"),
        "garment": "1",
        "category": "dress",
        "score": "0.875",
        "kind": "dress",
        **{"x1": "1.0", "y1": "2.0", "x2": "5.0", "y2": "8.0"},
        "area": "0.007812",
        "color": "blue",
        "hex": "#102080",
        **{"sleeve": "long_sleeve", "sleeve_score": "0.9"},
        **{"neckline": "not_visible", "neckline_score": "0.7"},
    }
    assert cli("recognize", photos / "nothing.png", "--csv").stdout.startswith("photo,garment,category,score")


def test_recognize_format_is_json_and_csv_by_another_name(cli, photos):
    for name in ("json", "csv"):
        assert cli("recognize", photos, "--format", name).stdout == cli("recognize", photos, f"--{name}").stdout
    assert cli("recognize", photos, "--format", "table").stdout == cli("recognize", photos).stdout
    assert cli("recognize", photos, "--format", "json", "--json", "--masks").stdout.count('"counts"') == 3


def test_recognize_coco_is_a_data_set_of_the_run(cli, photos):
    taxonomy = photos / "mine.yaml"
    words = "values: {hat: hat, dress: {phrases: [dress], kind: dress}}"
    taxonomy.write_text("name: mine\nattributes: {}\ncategory: {template: 'a {color} {category}', " + words + "}")
    done = cli("recognize", photos, "--format", "coco", "--taxonomy", taxonomy)
    assert (done.exit_code, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert [image["file_name"] for image in data["images"]] == [str(photo) for photo in find_photos([str(photos)])[0]]
    assert [one["image_id"] for one in data["annotations"]] == [1, 2, 3]
    assert data["categories"] == [
        {"id": 1, "name": "hat", "supercategory": "garment"},
        {"id": 2, "name": "dress", "supercategory": "dress"},
    ]
    first = data["annotations"][0]
    assert first["category_id"] == 2
    assert first["bbox"] == [1.0, 2.0, 4.0, 6.0]
    assert first["segmentation"]["size"] == [64, 48]


@pytest.mark.parametrize(("on_error", "count"), [("raise", 1), ("skip", 3)])
def test_recognize_coco_is_whole_after_a_bad_photo(cli, photos, on_error, count):
    (photos / "b.JPG").write_text("not a photo")
    done = cli("recognize", photos, "--format", "coco", "--on-error", on_error)
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert len(data["images"]) == count
    assert len(data["categories"]) > 50
    assert f"photo {photos / 'b.JPG'} can't be read; send another" in done.stderr


def test_recognize_yolo_keeps_the_folders(cli, photos, tmp_path):
    out = tmp_path / "shop"
    done = cli("recognize", photos, "--format", "yolo", "--out", out)
    assert (done.exit_code, done.stderr, done.stdout) == (0, "", f"{out / 'data.yaml'}\n")
    number = [value.name for value in Taxonomy.load("default").category.values].index("dress")
    line = f"{number} 0.0208333 0.03125 0.104167 0.03125 0.104167 0.125 0.0208333 0.125\n"
    found = {name: text.decode() for name, text in tree(out / "labels").items()}
    assert found == {"a.txt": line, "b.txt": line, "inner/a.txt": line, "nothing.txt": ""}
    done = cli("recognize", photos, "--format", "yolo", "--out", out)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {out / 'labels'} must be empty or missing, found files; remove them or")
    assert len(DrawnModel.calls) == 1  # nothing was computed


@pytest.mark.parametrize(("on_error", "written"), [("raise", ["a"]), ("skip", ["a", "inner/a", "nothing"])])
def test_recognize_yolo_keeps_what_is_good(cli, photos, tmp_path, on_error, written):
    (photos / "b.JPG").write_text("not a photo")
    done = cli("recognize", photos, "--format", "yolo", "--out", tmp_path / "shop", "--on-error", on_error)
    assert done.exit_code == 1
    assert sorted(tree(tmp_path / "shop")) == ["data.yaml", *(f"labels/{name}.txt" for name in written)]
    assert f"photo {photos / 'b.JPG'} can't be read; send another" in done.stderr


def test_recognize_yolo_refuses_photos_that_would_share_labels(cli, photos, tmp_path):
    drawn_photo().save(photos / "a.jpg")
    done = cli("recognize", photos, "--format", "yolo", "--out", tmp_path / "shop")
    both = f"{photos / 'a.jpg'} and {photos / 'a.png'}"
    remedy = "give the folder above both, or rename one"
    assert done.stderr == f"error: id 'a.txt' must stand for one photo, got {both}; {remedy}\n"
    assert not (tmp_path / "shop").exists()


def test_recognize_save_writes_a_card_per_photo(cli, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Recognition, "draw", lambda self: drawn_photo((30, 10)))
    assert cli("recognize", photos, "--save", tmp_path / "cards").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "cards").iterdir()) == ["a-2.png", "a.png", "b.png", "nothing.png"]


def test_recognize_options_reach_the_model(cli, photos):
    options = ("--taxonomy", "deepfashion", "--top-k", 5, "--batch-size", 2, "--max-pixels", 9000)
    done = cli("recognize", photos, *options, "--device", "cpu", "--dtype", "float32", "--no-segmenter")
    assert done.exit_code == 0
    assert DrawnModel.calls[0] == {"device": "cpu", "dtype": "float32"}
    expected = {"taxonomy": "deepfashion", "top_k": 5, "batch_size": 2, "max_pixels": 9000, "segmenter": None}
    assert DrawnModel.calls[1] == expected | {"keep_image": False}


def test_recognize_boxes_reach_the_model(cli, photos):
    assert cli("recognize", photos / "a.png", "--box", "1,2,3,4", "--box", "-5,0,10.5,9").exit_code == 0
    assert DrawnModel.calls[1]["boxes"] == [(1.0, 2.0, 3.0, 4.0), (-5.0, 0.0, 10.5, 9.0)]
    assert DrawnModel.calls[1]["segmenter"] == "auto"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--csv"], "exclude each other"),
        (["--format", "coco", "--csv"], "exclude each other"),
        (["--format", "voc"], "'voc' is not one of 'table', 'json', 'csv', 'coco', 'yolo'"),
        (["--format", "coco", "--masks"], "--masks goes with --json"),
        (["--format", "yolo"], "--format yolo and --out DIR go together"),
        (["--format", "coco", "--out", "x"], "--format yolo and --out DIR go together"),
        (["--masks"], "--masks goes with --json"),
        (["--box", "1,2,3"], "four numbers"),
        (["--box", "1,2,3,nan"], "finite"),
        (["--box", "1,2,3,4"], "single photo, got 4"),
        (["--on-error", "ignore"], "on-error"),
        (["--top-k", "0"], "top-k"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_recognize_wrong_usage_exits_with_2(cli, photos, options, message):
    done = cli("recognize", photos, *options)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert message in done.stderr


def test_recognize_stops_at_a_bad_photo(cli, photos):
    (photos / "b.JPG").write_text("not a photo")
    done = cli("recognize", photos, "--json")
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == f"error: photo {photos / 'b.JPG'} can't be read; send another\n"


def test_recognize_skips_a_bad_photo_and_lists_it(cli, photos):
    (photos / "b.JPG").write_text("not a photo")
    done = cli("recognize", photos, photos / "*.bmp", "--json", "--on-error", "skip")
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 3
    lines = done.stderr.splitlines()
    assert lines[0] == "2 failed:"
    assert lines[1] == f"  {photos / '*.bmp'}: no file matches '{photos / '*.bmp'}'; check the pattern"
    assert lines[2] == f"  {photos / 'b.JPG'}: photo {photos / 'b.JPG'} can't be read; send another"


@pytest.mark.parametrize(
    ("error", "status", "stderr"),
    [
        (InputError("a\nb"), 1, "error: a b\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_recognize_errors_are_one_line(cli, photos, monkeypatch, error, status, stderr):
    def fail(self, images, **options):
        raise error

    monkeypatch.setattr(DrawnModel, "recognize_many", fail)
    done = cli("recognize", photos)
    assert (done.exit_code, done.stderr) == (status, stderr)


def test_recognize_with_an_unknown_model_exits_with_1(cli, photos):
    done = cli("recognize", photos, "--model", "nope")
    assert (done.exit_code, done.stderr) == (1, "error: no model 'nope'; expected 'compact'\n")


def test_encode_npy_writes_ids_beside_embeddings(cli, photos, tmp_path):
    done = cli("encode", photos, "--out", tmp_path / "x.npy", "--batch-size", 3, "--max-pixels", 9000)
    assert done.exit_code == 0
    assert done.stderr == f"4 embeddings of 4 numbers in {tmp_path / 'x.npy'}\n"
    embeddings = np.load(tmp_path / "x.npy")
    assert embeddings.dtype == np.float32
    assert embeddings.tolist() == [[48.0] * 4] * 4
    ids = (tmp_path / "x.ids.txt").read_text(encoding="utf-8").splitlines()
    assert ids == [str(photo) for photo in find_photos([str(photos)])[0]]
    assert DrawnModel.calls[1:] == [{"batch_size": 3, "max_pixels": 9000}]


def test_encode_skips_a_bad_photo_and_lists_it(cli, photos, tmp_path):
    (photos / "b.JPG").write_text("not a photo")
    assert cli("encode", photos, "--out", tmp_path / "x.npy").exit_code == 1
    assert not (tmp_path / "x.npy").exists()
    done = cli("encode", photos, "--out", tmp_path / "x.npy", "--on-error", "skip")
    assert done.exit_code == 1
    assert "1 failed:" in done.stderr
    assert len(np.load(tmp_path / "x.npy")) == 3
    assert str(photos / "b.JPG") not in (tmp_path / "x.ids.txt").read_text(encoding="utf-8")


def test_encode_texts_takes_lines(cli, tmp_path):
    (tmp_path / "t.txt").write_text("red\n\nlong dress\n", encoding="utf-8")
    assert cli("encode", "--texts", tmp_path / "t.txt", "--out", tmp_path / "t.npy").exit_code == 0
    assert np.load(tmp_path / "t.npy")[:, 0].tolist() == [3.0, 10.0]
    assert (tmp_path / "t.ids.txt").read_text(encoding="utf-8") == "red\nlong dress\n"


def test_encode_parquet_has_ids_and_embeddings(cli, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert cli("encode", photos, "--out", tmp_path / "x.parquet").exit_code == 0
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["id", "embedding"]
    assert str(table.schema.field("embedding").type).endswith("[4]")
    assert table["embedding"].to_pylist() == [[48.0] * 4] * 4


def test_encode_without_pyarrow_names_the_extra(cli, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "find_spec", lambda name: None)
    done = cli("encode", photos, "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert done.stderr == "error: a .parquet file needs pyarrow; pip install 'fashion-retrieval[parquet]'\n"


def test_encode_wrong_usage_exits_with_2_and_missing_files_with_1(cli, photos, tmp_path):
    assert cli("encode", "--out", tmp_path / "x.npy").exit_code == 2
    assert cli("encode", photos, "--texts", "t.txt", "--out", tmp_path / "x.npy").exit_code == 2
    assert cli("encode", photos, "--out", tmp_path / "x.csv").exit_code == 2
    done = cli("encode", photos, "--out", tmp_path / "no" / "x.npy")
    assert (done.exit_code, "existing folder" in done.stderr) == (1, True)
    done = cli("encode", "--texts", tmp_path / "no.txt", "--out", tmp_path / "x.npy")
    assert (done.exit_code, done.stderr) == (1, f"error: {tmp_path / 'no.txt'}: No such file or directory\n")


def test_models_list_has_the_embedded_model(cli):
    assert "compact" in cli("models", "list").stdout
    known = json.loads(cli("models", "list", "--json").stdout)
    assert [model["id"] for model in known if model["embedded"]] == ["compact"]


def test_models_download_prints_the_folder(cli, tmp_path):
    assert cli("models", "download", tmp_path).stdout == f"{tmp_path}\n"
    done = cli("models", "download", "no such model")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: no model 'no such model'; expected")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("problems", "status"), [([], 0), (["WeightsError: altered"], 1)])
def test_doctor_exits_with_1_if_there_are_problems(cli, monkeypatch, problems, status):
    findings = {"version": "1", "packages": {"torch": None}, "problems": problems}
    monkeypatch.setitem(vars(fashion_retrieval), "doctor", lambda device, dtype, backends: findings)
    done = cli("doctor", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (status, findings)
    lines = dict(map(str.strip, line.split(maxsplit=1)) for line in cli("doctor").stdout.splitlines())
    assert lines == {"version": "1", "packages.torch": "None", "problems": ", ".join(problems) or "none"}
