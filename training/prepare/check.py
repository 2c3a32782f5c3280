"""Checks of a data set's root before anything runs on it."""

from __future__ import annotations

from pathlib import Path

from fashion_retrieval.errors import ConfigError
from training.data.deepfashion import COLORS, MASKS, clip_box, mask_path, read_colors
from training.data.deepfashion_files import Faults, PhotoFolders, annotation_folder, subfolders
from training.data.deepfashion_labels import ATTRIBUTES, PUBLISHED, Annotated, inspect_annotations
from training.prepare.photos import look_at_all
from training.prepare.report import Count, Report, sort_photos


def check(root: Path, *, decode: bool = False, workers: int = 1) -> Report:
    """Check a root of either data set, which is recognized by its folders; `workers` processes decode photos."""
    if annotation_folder(root) is not None:
        return check_deepfashion(root, decode=decode, workers=workers)
    if root.is_dir() and (subfolders(root, "captions") or subfolders(root, "image_splits")):
        from training.prepare.check_fashioniq import check_fashioniq  # brings torch

        return check_fashioniq(root, decode=decode, workers=workers)
    expected = "DeepFashion's Anno_fine/ or FashionIQ's captions/ and image_splits/"
    raise ConfigError(f"expected {expected} in {root}, found neither; give the folder that holds them")


def check_deepfashion(root: Path, *, decode: bool, workers: int) -> Report:
    """Counts, photos, boxes and labels of DeepFashion."""
    annotations, folders = inspect_annotations(root), PhotoFolders(root)
    rows = [row for split in annotations.splits.values() for row in split]
    paths = {row.path: folders.find(row.path) for row in rows}
    looks = dict(zip(paths, look_at_all(list(paths.values()), decode=decode, workers=workers), strict=True))
    faults, cut = annotations.faults, 0
    for row in rows:
        size = looks[row.path].size
        box = row.box if size is None else clip_box(row.box, size)
        cut += box not in (None, row.box)
        if box is None:
            faults.add("box outside its photo for", row.path)
    notes = {"boxes cut at the photo's edge": cut, "rows whose photo comes again": annotations.repeated}
    notes["photos labeled otherwise in list_attr_img.txt"] = annotations.disagreements
    for group in ATTRIBUTES:
        counts = [row.positives.get(group, 1) for row in rows]
        notes[f"{group}: without a positive"] = counts.count(0)
        notes[f"{group}: with several positives"] = sum(count > 1 for count in counts)
    good, bad = sort_photos(paths, list(looks.values()))
    sizes = [Count(split, len(annotations.splits.get(split, [])), size) for split, size in PUBLISHED.items()]
    sizes += _prepared(root, rows, faults)
    looked = "pixels" if decode else "headers"
    return Report("deepfashion", str(root), sizes, notes, faults.lines(None), looked, good, bad)


def _prepared(root: Path, rows: list[Annotated], faults: Faults) -> list[Count]:
    """Number of garments with the mask and the color that `prepare` makes in the root."""
    masks = sum(mask_path(root / MASKS, row.id).is_file() for row in rows) if (root / MASKS).is_dir() else 0
    colors: dict[str, str] = {}
    if (root / COLORS).exists():
        try:
            colors = read_colors(root / COLORS)
        except ConfigError as error:
            faults.add("prepared colors:", str(error))
    return [Count("prepared masks", masks), Count("prepared colors", sum(row.id in colors for row in rows))]
