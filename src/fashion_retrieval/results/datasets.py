"""Recognitions as data sets for training and labeling tools: COCO and YOLO."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.regions import mask_box
from fashion_retrieval.results.masks import compressed, joined, polygons, run_lengths
from fashion_retrieval.results.recognition import Garment, Recognition
from fashion_retrieval.results.retrieval import Failure
from fashion_retrieval.taxonomy import Taxonomy

Names = Iterable[str | PurePath] | None
TaxonomySource = Taxonomy | Mapping[str, Any] | str | Path | None


def to_coco(
    recognitions: Iterable[Recognition | Failure],
    *,
    file_names: Names = None,
    taxonomy: TaxonomySource = None,
    as_polygons: bool = False,
) -> dict[str, Any]:
    """Recognitions as a COCO data set: a dict for `json.dump`.

    An annotation has the mask as compressed run lengths, the tight box around it (x y width height) and its area, in
    pixels of the upright photo, the probability of its category as `score`, and `attributes`: those that are visible,
    `color` and `hex`. A mask without a pixel has the garment's own box. Numbers count from 1, in the order given.

    Args:
        recognitions: What `recognize_many` yields; a `Failure` is left out.
        file_names: One for each recognition or failure; None takes each `Recognition.source`.
        taxonomy: As in `recognize`: its categories, so that their numbers are those of other runs. None takes the
            categories that were found, sorted.
        as_polygons: For tools that don't read run lengths: a polygon for each part of a mask, within a pixel.

    Raises:
        InputError: What comes is no recognition, file names are missing or not unique, or a category is not in the
            taxonomy.
    """
    classes = _classes(taxonomy)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    models = set()
    for image_id, (name, photo) in enumerate(_named(recognitions, file_names), start=1):
        images.append({"id": image_id, "width": photo.width, "height": photo.height, "file_name": name})
        models.add(photo.model_id)
        for garment in photo.garments:
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": garment.category.name}
            annotations.append(annotation | _annotation(garment, as_polygons))
    classes = classes or dict.fromkeys(sorted({one["category_id"] for one in annotations}), "garment")
    for one in annotations:
        one["category_id"] = _number(classes, one["category_id"]) + 1
    categories = [
        {"id": number, "name": name, "supercategory": kind} for number, (name, kind) in enumerate(classes.items(), 1)
    ]
    by = f" ({', '.join(sorted(models))})" if models else ""
    info = {"description": f"Garments recognized by fashion-retrieval{by}"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def to_yolo(
    recognitions: Iterable[Recognition | Failure],
    folder: str | Path,
    *,
    file_names: Names = None,
    taxonomy: TaxonomySource = None,
) -> Path:
    """Write a YOLO data set for detection and segmentation: `data.yaml`, and a text file for each photo in `labels/`.

    A line is a garment: the number of its category, from 0, and a polygon around its mask, within a pixel, as fractions
    of the upright photo. Holes and further parts hang on lines of no width; a mask without a pixel gets its box. The
    photos belong into `images/`, under the same names; they are not copied. With a taxonomy files are written as
    recognitions come, without one at the end.

    Args:
        recognitions: As in `to_coco`.
        folder: New, or with an empty `labels/` or none; `data.yaml` is replaced.
        file_names: As in `to_coco`, relative to `images/`.
        taxonomy: As in `to_coco`.

    Returns:
        The path of `data.yaml`.

    Raises:
        InputError: As in `to_coco`; `labels/` has files already, or names differ in their endings alone.
    """
    data, labels = Path(folder, "data.yaml"), Path(folder, "labels")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"folder {str(folder)!r} must be new or a folder, got a file; name another")
    if labels.exists() and any(labels.iterdir()):
        raise InputError(f"{labels} must be empty or missing, found files; remove them or name another folder")
    classes = _classes(taxonomy)
    photos: Iterable[tuple[str, Recognition]] = _named(recognitions, file_names, _label_file)
    if not classes:
        photos = [(name, photo.compact()) for name, photo in photos]
        found = {garment.category.name for _, photo in photos for garment in photo.garments}
        classes = dict.fromkeys(sorted(found), "garment")
    names = json.dumps(list(classes), ensure_ascii=False)
    labels.mkdir(parents=True, exist_ok=True)
    _write(data, f"train: images\nval: images  # better other photos than those for training\nnames: {names}\n")
    for name, photo in photos:
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        _write(labels / name, "".join(f"{_line(classes, garment, photo)}\n" for garment in photo.garments))
    return data


def _named(
    recognitions: Iterable[Recognition | Failure], file_names: Names, called: Callable[[str], str] = str
) -> Iterator[tuple[str, Recognition]]:
    """Each recognition with what its file is `called`, as no other is; failures are left out."""
    if not isinstance(recognitions, Iterable):
        raise InputError(f"recognitions must be a list or iterator, got {type(recognitions).__name__}; give a list")
    if isinstance(file_names, str | PurePath) or not isinstance(file_names, Iterable | None):
        raise InputError(f"file_names must be a list or iterator, got {file_names!r:.60}; give a list, one for each")
    names = None if file_names is None else iter(file_names)
    seen: dict[str, int] = {}
    for index, photo in enumerate(recognitions):
        name = next(names, None) if names else getattr(photo, "source", None)
        if isinstance(photo, Failure):
            continue
        if not isinstance(photo, Recognition):
            raise InputError(f"recognitions[{index}] must be a Recognition or Failure, got {type(photo).__name__}")
        name = name.as_posix() if isinstance(name, PurePath) else name
        if not isinstance(name, str) or not name:
            raise InputError(f"recognitions[{index}] must have a file name, got {name!r}; give file_names, one each")
        name = called(name)
        if name in seen:
            both = f"recognitions[{seen[name]}] and [{index}]"
            raise InputError(f"{both} must have file names of their own, got {name!r} for both; give file_names")
        seen[name] = index
        yield name, photo
    if names and next(names, None) is not None:
        raise InputError("file_names must be as many as recognitions, got more; give one for each")


def _label_file(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(f"a file name must lie below images/, got {name!r}; give names relative to that folder")
    return str(path.with_suffix(".txt"))


def _classes(taxonomy: TaxonomySource) -> dict[str, str]:
    """Names of a taxonomy's categories, in its order, and what kind each is of."""
    values = () if taxonomy is None else Taxonomy.load(taxonomy).category.values
    return {value.name: value.kind or "garment" for value in values}


def _number(classes: dict[str, str], category: str) -> int:
    if category not in classes:
        raise InputError(f"category {category!r} is not in the taxonomy; give the one it was recognized with")
    return list(classes).index(category)


def _annotation(garment: Garment, as_polygons: bool) -> dict[str, Any]:
    mask = garment.mask
    x1, y1, x2, y2 = mask_box(mask) if mask.any() else garment.box
    visible = {name: attribute.value for name, attribute in garment.attributes.items() if attribute.value}
    colors = {"color": garment.color, "hex": garment.colors[0].hex} if garment.colors else {}
    outline = [polygon.ravel().tolist() for polygon in polygons(mask)] if as_polygons else None
    return {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(mask.sum()),
        "segmentation": outline or {"size": list(mask.shape), "counts": compressed(run_lengths(mask))},
        "iscrowd": 0,
        "score": round(garment.category.probability, 6),
        "attributes": colors | visible,
    }


def _line(classes: dict[str, str], garment: Garment, photo: Recognition) -> str:
    x1, y1, x2, y2 = garment.box
    parts = polygons(garment.mask)
    points = joined(parts).tolist() if parts else [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    numbers = " ".join(f"{x / photo.width:.6g} {y / photo.height:.6g}" for x, y in points)
    return f"{_number(classes, garment.category.name)} {numbers}"


def _write(target: Path, text: str) -> None:
    with write_atomically(target) as part:
        part.write_text(text, encoding="utf-8")
