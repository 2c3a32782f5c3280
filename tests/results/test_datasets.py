"""COCO and YOLO data sets: pycocotools and the rules of YOLO's reader read back what was recognized."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw, ImageOps
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashion_retrieval import Failure, FashionModel, Taxonomy, to_coco, to_yolo
from fashion_retrieval.errors import ImageError, InputError, TaxonomyError
from fashion_retrieval.results import Attribute, Color, Garment, Recognition, Region, Score
from fashion_retrieval.results import masks as shapes
from tests.support.tiny import tiny_folder

# pycocotools 2.0.11 against numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

HEIGHT, WIDTH = 90, 70
FAILED = Failure(1, "b.jpg", ImageError("photo 'b.jpg' is empty"))


def drawn(*rectangles, hole=None, size=(HEIGHT, WIDTH)):
    """A mask of rectangles x1 y1 x2 y2."""
    mask = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in rectangles:
        mask[y1:y2, x1:x2] = True
    if hole:
        mask[hole[1] : hole[3], hole[0] : hole[2]] = False
    return mask


MASKS = {
    "one part": drawn((10, 5, 40, 80)),
    "several parts": drawn((3, 3, 20, 30), (40, 50, 66, 88), (50, 2, 60, 9)),
    "parts that touch by a corner": drawn((5, 5, 15, 15), (15, 15, 30, 30)),
    "hole": drawn((5, 5, 60, 80), hole=(20, 20, 40, 50)),
    "parts and holes": drawn((0, 0, 30, 60), (40, 40, 70, 90), hole=(10, 10, 20, 50)),
    "one pixel": drawn((33, 44, 34, 45)),
    "last pixel": drawn((WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT)),
    "one column": drawn((7, 0, 8, HEIGHT)),
    "all": drawn((0, 0, WIDTH, HEIGHT)),
    "round": np.hypot(*np.mgrid[-40:50, -30:40]) < 28,
}


def garment(mask, category="dress", probability=0.75, box=None):
    best = Score(category, probability)
    attributes = {
        "sleeve": Attribute("sleeve", "long_sleeve", 0.9),
        "neckline": Attribute("neckline", None, 0.7, "not_visible"),
    }
    return Garment(
        box or (0, 0, mask.shape[1], mask.shape[0]),
        mask,
        0.5,
        "dress",
        category=best,
        categories=(best,),
        attributes=attributes,
        colors=(Color("blue", "#102080", 0.8),),
    )


def recognition(*garments, source="a.jpg", size=(WIDTH, HEIGHT)):
    return Recognition(*size, garments, "compact", source)


def of_masks():
    """Two photos with the masks above, in four categories, and one without a garment."""
    names = ["top", "dress", "skirt", "cape"]
    found = [garment(mask, names[i % 4], 0.9 - i / 20) for i, mask in enumerate(MASKS.values())]
    return [recognition(*found[:5]), recognition(*found[5:], source="c.jpg"), recognition(source="none.jpg")]


def reading(data, path):
    """pycocotools' reading of a data set, from a file."""
    path.write_text(json.dumps(data), encoding="utf-8")
    return COCO(path)


def random_masks():
    generator = np.random.default_rng(0)
    for number in range(300):
        height, width = generator.integers(1, 60, 2)
        mask = generator.random((height, width)) < generator.random() ** 2
        yield mask if number % 3 else mask.repeat(7, 0).repeat(5, 1)
    for height, width in ((1, 1), (1, 77), (91, 1), (3, 2), (1200, 1601)):
        for value in (False, True):
            yield np.full((height, width), value)
    yield from MASKS.values()


def drawn_back(polygons, height, width):
    pieces = coco_masks.frPyObjects([polygon.ravel().tolist() for polygon in polygons], height, width)
    return coco_masks.decode(coco_masks.merge(pieces)).astype(bool)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


# --- masks


def test_compressed_run_lengths_are_pycocotools_bytes():
    for mask in random_masks():
        expected = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert shapes.compressed(shapes.run_lengths(mask)).encode() == expected["counts"]
        plain = {"size": list(mask.shape), "counts": shapes.run_lengths(mask)}
        assert coco_masks.frPyObjects(plain, *mask.shape) == expected


def test_outlines_before_they_are_simplified_are_the_masks_to_the_pixel(monkeypatch):
    monkeypatch.setattr(shapes, "_simplified", lambda ring: ring)
    for mask in random_masks():
        if mask.any() and mask.size < 1e5:
            parts = shapes.polygons(mask)
            assert sum(map(shapes._area, parts)) == mask.sum()  # holes turn the other way
            for polygons in (parts, [shapes.joined(parts)]):
                np.testing.assert_array_equal(drawn_back(polygons, *mask.shape), mask)


@pytest.mark.parametrize("name", MASKS)
def test_polygons_of_a_mask_have_corners_area_and_its_pixels(name):
    mask = MASKS[name]
    parts = shapes.polygons(mask)
    assert len(parts) == {"several parts": 3, "parts that touch by a corner": 2, "parts and holes": 2}.get(name, 1)
    assert all(len(part) >= 4 and shapes._area(part) > 0 for part in parts)
    assert sum(map(shapes._area, parts)) == pytest.approx(mask.sum(), rel=0.02)
    assert overlap(drawn_back(parts, HEIGHT, WIDTH), mask) > (0.97 if name == "round" else 0.9999)
    assert overlap(drawn_back([shapes.joined(parts)], HEIGHT, WIDTH), mask) > (0.97 if name == "round" else 0.9999)


def test_a_polygon_of_a_large_mask_has_few_points_within_a_pixel():
    y, x = np.mgrid[:1000, :800]
    mask = ((y - 500) / 400) ** 2 + ((x - 400) / 250) ** 2 < 1
    (polygon,) = shapes.polygons(mask)
    assert len(polygon) < 250
    assert overlap(drawn_back([polygon], 1000, 800), mask) > 0.997


# --- COCO


def test_to_coco_has_images_categories_and_annotations():
    found = [recognition(garment(MASKS["several parts"])), FAILED, recognition(garment(MASKS["one pixel"]), source="c")]
    data = to_coco(iter(found))
    assert list(data) == ["info", "licenses", "images", "annotations", "categories"]
    assert data["info"] == {"description": "Garments recognized by fashion-retrieval (compact)"}
    assert data["images"] == [
        {"id": 1, "width": 70, "height": 90, "file_name": "a.jpg"},
        {"id": 2, "width": 70, "height": 90, "file_name": "c"},
    ]
    assert data["categories"] == [{"id": 1, "name": "dress", "supercategory": "garment"}]
    first, second = data["annotations"]
    assert isinstance(first.pop("segmentation")["counts"], str)
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [3.0, 2.0, 63.0, 86.0],
        "area": float(MASKS["several parts"].sum()),
        "iscrowd": 0,
        "score": 0.75,
        "attributes": {"color": "blue", "hex": "#102080", "sleeve": "long_sleeve"},
    }
    assert (second["id"], second["image_id"], second["bbox"], second["area"]) == (2, 2, [33.0, 44.0, 1.0, 1.0], 1.0)
    assert to_coco([]) == {
        "info": {"description": "Garments recognized by fashion-retrieval"},
        "licenses": [],
        **{"images": [], "annotations": [], "categories": []},
    }


def test_pycocotools_reads_masks_areas_and_boxes_as_they_are(tmp_path):
    coco = reading(to_coco(of_masks()), tmp_path / "coco.json")
    assert len(coco.anns) == len(MASKS)
    for annotation, mask in zip(coco.loadAnns(coco.getAnnIds()), MASKS.values(), strict=True):
        read = coco.annToMask(annotation)
        np.testing.assert_array_equal(read.astype(bool), mask)
        assert annotation["area"] == coco_masks.area(annotation["segmentation"]) == mask.sum()
        assert annotation["bbox"] == coco_masks.toBbox(annotation["segmentation"]).tolist()
    assert [coco.cats[number]["name"] for number in coco.getCatIds()] == ["cape", "dress", "skirt", "top"]
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.jpg", "c.jpg", "none.jpg"]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("as_polygons", [False, True])
def test_an_export_against_itself_has_an_average_precision_of_one(tmp_path, kind, as_polygons):
    data = to_coco(of_masks(), as_polygons=as_polygons)
    truth = reading(data, tmp_path / "coco.json")
    judge = COCOeval(truth, truth.loadRes(json.loads(json.dumps(data["annotations"]))), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    np.testing.assert_allclose(judge.stats[:3], 1, atol=1e-9)


def test_coco_polygons_are_one_a_part(tmp_path):
    coco = reading(to_coco(of_masks(), as_polygons=True), tmp_path / "coco.json")
    for annotation, mask in zip(coco.loadAnns(coco.getAnnIds()), MASKS.values(), strict=True):
        assert all(len(polygon) >= 8 for polygon in annotation["segmentation"])
        assert overlap(coco.annToMask(annotation).astype(bool), mask) > 0.97
        assert annotation["area"] == mask.sum()


def test_a_mask_without_a_pixel_has_the_garments_box(tmp_path):
    empty = garment(np.zeros((HEIGHT, WIDTH), dtype=bool), box=(10.5, 20, 30, 45))
    for as_polygons in (False, True):
        data = to_coco([recognition(empty)], as_polygons=as_polygons)
        coco = reading(data, tmp_path / "coco.json")
        assert (coco.anns[1]["bbox"], coco.anns[1]["area"]) == ([10.5, 20.0, 19.5, 25.0], 0.0)
        assert not coco.annToMask(coco.anns[1]).any()
    to_yolo([recognition(empty)], tmp_path)
    line = (tmp_path / "labels/a.txt").read_text(encoding="utf-8")
    assert line == "0 0.15 0.222222 0.428571 0.222222 0.428571 0.5 0.15 0.5\n"


def test_categories_of_a_taxonomy_keep_their_numbers():
    names = [value.name for value in Taxonomy.load("default").category.values]
    data = to_coco([recognition(garment(MASKS["all"], "cape"))], taxonomy="default")
    assert [(one["id"], one["name"]) for one in data["categories"]] == list(enumerate(names, start=1))
    assert data["categories"][0] == {"id": 1, "name": "tee", "supercategory": "upper"}
    assert data["annotations"][0]["category_id"] == names.index("cape") + 1
    with pytest.raises(InputError, match="category 'cloak' is not in the taxonomy; give the one it was"):
        to_coco([recognition(garment(MASKS["all"], "cloak"))], taxonomy="default")
    with pytest.raises(TaxonomyError, match=r"'no\.yaml' can't be read"):
        to_coco((1 / 0 for _ in "x"), taxonomy="no.yaml")


def test_file_names_replace_the_sources():
    photos = [Path("x/a.jpg"), Path("x/b.jpg"), "y/a.jpg"]
    data = to_coco([recognition(source=None), FAILED, recognition()], file_names=photos)
    assert [image["file_name"] for image in data["images"]] == ["x/a.jpg", "y/a.jpg"]


@pytest.mark.parametrize("export", ["coco", "yolo"])
@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        (recognition(), None, "recognitions must be a list or iterator, got Recognition; give a list"),
        ([recognition(), "b.jpg"], None, "recognitions[1] must be a Recognition or Failure, got str"),
        ([FAILED, recognition(source=None)], None, "recognitions[1] must have a file name, got None; give file_names"),
        ([recognition()] * 2, ["a.jpg"], "recognitions[1] must have a file name, got None; give file_names, one each"),
        ([recognition()], [3], "recognitions[0] must have a file name, got 3"),
        ([recognition()], "a.jpg", "file_names must be a list or iterator, got 'a.jpg'"),
        ([recognition()], 5, "file_names must be a list or iterator, got 5"),
        ([recognition()], ["a.jpg", "b.jpg"], "file_names must be as many as recognitions, got more"),
        ([recognition(), FAILED, recognition()], None, "recognitions[0] and [2] must have file names of their own"),
    ],
)
def test_what_cannot_be_exported_is_an_error_of_one_line(tmp_path, export, given, names, words):
    with pytest.raises(InputError) as caught:
        to_coco(given, file_names=names) if export == "coco" else to_yolo(given, tmp_path, file_names=names)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- YOLO


def rows(path):
    return [[float(number) for number in line.split()] for line in path.read_text(encoding="utf-8").splitlines()]


def test_to_yolo_has_names_and_a_polygon_a_garment(tmp_path):
    data = to_yolo([*of_masks(), FAILED], tmp_path / "shop", file_names=["x/a.jpg", "x/y/c.d.png", "none.jpg", "b.jpg"])
    assert data == tmp_path / "shop" / "data.yaml"
    assert yaml.safe_load(data.read_text(encoding="utf-8")) == {
        **{"train": "images", "val": "images"},
        "names": ["cape", "dress", "skirt", "top"],
    }
    labels = tmp_path / "shop" / "labels"
    files = sorted(str(path.relative_to(labels)) for path in labels.rglob("*") if path.is_file())
    assert files == ["none.txt", "x/a.txt", "x/y/c.d.txt"]
    assert (labels / "none.txt").read_text() == ""
    found = rows(labels / "x/a.txt") + rows(labels / "x/y/c.d.txt")
    assert [row[0] for row in found] == [(3, 1, 2, 0)[index % 4] for index in range(len(MASKS))]
    for row, mask in zip(found, MASKS.values(), strict=True):
        points = np.array(row[1:]).reshape(-1, 2)
        assert len(points) >= 4
        assert points.min() >= 0
        assert points.max() <= 1
        polygon = points * (WIDTH, HEIGHT)
        assert overlap(drawn_back([polygon], HEIGHT, WIDTH), mask) > 0.97
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        y, x = np.nonzero(mask)
        np.testing.assert_allclose([*low, *high], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.001)


def test_opencv_fills_the_polygon_of_parts_and_holes(tmp_path):
    cv2 = pytest.importorskip("cv2")
    mask = drawn((4, 4, 400, 500), (500, 600, 690, 890), hole=(100, 100, 300, 300), size=(900, 700))
    to_yolo([recognition(garment(mask), size=(700, 900))], tmp_path)
    points = np.array(rows(tmp_path / "labels/a.txt")[0][1:]).reshape(-1, 2) * (700, 900)
    filled = cv2.fillPoly(np.zeros((900, 700), np.uint8), [points.round().astype(np.int32)], 1).astype(bool)
    assert overlap(filled, mask) > 0.98


def test_with_a_taxonomy_yolo_files_are_written_as_recognitions_come(tmp_path):
    def failing():
        yield recognition(garment(MASKS["all"], "tee"))
        raise ImageError("photo 'b.jpg' is empty")

    with pytest.raises(ImageError):
        to_yolo(failing(), tmp_path, taxonomy="default")
    assert rows(tmp_path / "labels/a.txt") == [[0, 0, 0, 1, 0, 1, 1, 0, 1]]
    assert yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))["names"][:2] == ["tee", "button_down"]


def test_yolo_labels_are_never_mixed_or_outside(tmp_path):
    to_yolo([recognition()], tmp_path)
    with pytest.raises(InputError, match="labels must be empty or missing, found files; remove them or name another"):
        to_yolo([recognition()], tmp_path)
    with pytest.raises(InputError, match=r"data.yaml' must be new or a folder, got a file; name another$"):
        to_yolo([recognition()], tmp_path / "data.yaml")
    for name in ("../a.jpg", "/tmp/a.jpg", "."):
        with pytest.raises(InputError, match=r"a file name must lie below images/, got .*; give names relative"):
            to_yolo([recognition(source=name)], tmp_path / "other")
    with pytest.raises(InputError, match=r"\[0\] and \[1\] must have file names of their own, got 'a\.txt' for both"):
        to_yolo([recognition(), recognition(source="a.png")], tmp_path / "other")


# --- photos that are turned


class RedThings:
    """Finds what is red."""

    def segment(self, image, boxes=None):
        red = np.asarray(image, dtype=int)
        mask = (red[..., 0] > 150) & (red[..., 1] < 100)
        return [Region((0, 0, image.width, image.height), mask, 0.9, None)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return FashionModel.from_pretrained(tiny_folder(tmp_path_factory.mktemp("tiny")), device="cpu")


def test_photos_with_an_exif_orientation_are_exported_upright(model, tmp_path):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's code of the turn that a viewer has to undo
    upright = Image.new("RGB", (64, 32), "white")
    ImageDraw.Draw(upright).rectangle((8, 8, 39, 15), fill="red")
    photos = [tmp_path / f"{orientation}.jpg" for orientation in range(1, 9)]
    for orientation, photo in enumerate(photos, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turns[orientation]))
        stored.save(photo, quality=95, subsampling=0, exif=exif)
        assert stored.size == ((64, 32) if orientation < 5 else (32, 64))
    found = list(model.recognize_many(photos, segmenter=RedThings(), taxonomy="default", keep_image=False))
    coco = reading(to_coco(found, taxonomy="default"), tmp_path / "coco.json")
    to_yolo(found, tmp_path / "yolo", taxonomy="default")
    for photo, image, annotation in zip(photos, coco.imgs.values(), coco.anns.values(), strict=True):
        assert (image["file_name"], image["width"], image["height"]) == (photo.name, 64, 32)
        with Image.open(photo) as stored:
            turned = np.asarray(ImageOps.exif_transpose(stored), dtype=int)
        expected = (turned[..., 0] > 150) & (turned[..., 1] < 100)
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), expected)
        assert annotation["bbox"] == [8.0, 8.0, 32.0, 8.0]
        _, *points = rows(tmp_path / "yolo/labels" / f"{photo.stem}.txt")[0]
        assert points == [0.125, 0.25, 0.625, 0.25, 0.625, 0.5, 0.125, 0.5]


def test_compact_recognitions_give_the_same_data_set():
    found = of_masks()
    assert to_coco([one.compact() for one in found]) == to_coco(found) == to_coco([replace(one) for one in found])


@pytest.mark.parametrize("taxonomy", [None, "default"])
@pytest.mark.parametrize("export", ["coco", "yolo"])
def test_an_export_holds_one_photo_at_a_time(tmp_path, export, taxonomy):
    images = []

    def photos():
        for number in range(5):
            image = Image.new("RGB", (WIDTH, HEIGHT))
            images.append(weakref.ref(image))
            alive = [one() is not None for one in images[:-2]]
            assert not any(alive)
            yield replace(recognition(garment(MASKS["all"]), source=f"{number}.jpg"), image=image)

    to_coco(photos(), taxonomy=taxonomy) if export == "coco" else to_yolo(photos(), tmp_path, taxonomy=taxonomy)
    assert len(images) == 5
