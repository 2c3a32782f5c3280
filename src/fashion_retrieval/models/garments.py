"""From the class of each pixel to garments: regions of a photo, with box, mask, score and kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval._utils.cpu import threads
from fashion_retrieval.config import SegmenterConfig
from fashion_retrieval.images.pixels import Pixels
from fashion_retrieval.images.preprocess import Preprocessing, resized
from fashion_retrieval.images.regions import box_mask, labeled, mask_box, pixel_box
from fashion_retrieval.results import Region
from fashion_retrieval.taxonomy import FAMILIES

BACKGROUND, PERSON = "background", "person"
_STRIDE = 32
_MIN_AREA = 0.002  # of the photo
_MIN_PART = 0.04  # of the largest part of the same garment
_MIN_FRACTION = 0.45  # of the clothing probability, for a kind to be in the photo
_NOBODY = 0.012  # of the photo, at most, is person where nobody is in it
_BESIDE = 0.15  # of the likeliest kind's pixels that another kind must have there, to be a garment beside it
_SHARED = 0.08  # of the clothing probability, at most, is the likeliest kind's on such a garment
_MIN_SCORE = 0.75  # of a region, unless it is the surest one
_CLOTHING = 0.5
_LARGE = 16_000_000  # pixels of a photo
_WORKING_SIDE = 1024
_NEAR = 1 / 3  # of the photo is not background: seen from near
_FAR = 3 / 4  # of the input's size, for a look from further away
_RIVAL = 0.4  # of a kind's own probability where it is likeliest, for another of its family to be as good a name
_REACH = {"footwear": 2.0, "legwear": 2.0}
"""Gap between parts of one garment, in widths of the wider part; 0.75 where nothing is said. Shoes stand apart."""
_WORN = 2.0
"""The same where most of the gap is people and clothing: the halves of a jacket, with a shirt between."""


class GarmentFinder(ABC):
    """Finds every garment of a photo without a prompt, by a network that names the garment of each pixel.

    Pixels of one kind make one region, however many parts the photo shows of it (a pair of shoes, trousers behind a
    bag), unless the parts lie far apart: then they belong to different people.
    """

    takes_pixels = True  # beside PIL images, of which a large photo would need a second one in memory
    exact = True  # whether photos are shrunk by Pillow

    config: SegmenterConfig

    @abstractmethod
    def look(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1, 3, h, w) float32, normalized; h and w multiples of 32 -> (c, h, w), summing to 1 over the classes."""

    def segment(self, image: Image.Image | Pixels, boxes: NDArray[np.float32] | None = None) -> list[Region]:
        """Find the garments of an RGB photo of any size, largest first; with boxes the main garment inside each.

        Boxes are (N, 4) float32 xyxy in pixels, masks (H, W) bool, scores in [0, 1].
        """
        probabilities = self.probabilities(image)
        size = image.height, image.width
        if boxes is not None:
            return [self._region_in_box(probabilities, box, size) for box in boxes]
        regions = [_at_size(region, size) for region in self._regions(probabilities)]
        return sorted(regions, key=lambda region: -region.area)

    def probabilities(self, image: Image.Image | Pixels) -> NDArray[np.float32]:
        """RGB photo -> (c, h, w) float32, summing to 1 over the classes; large photos at `_WORKING_SIDE` pixels.

        Where people and garments fill much of the photo, it is looked at once more from further away, where they have
        the size that they mostly have, and the mean is given.
        """
        longest = max(self.config.image_size)
        inside = self._probabilities_at(image, longest)
        if 1 - inside[self.config.classes.index(BACKGROUND)].mean() > _NEAR:
            far = self._probabilities_at(image, round(_FAR * longest))
            inside = (inside + self.enlarged(far, inside.shape[1:])) * np.float32(0.5)
        working = min(1.0, _WORKING_SIDE / max(image.width, image.height))
        return self.enlarged(inside, (max(1, round(image.height * working)), max(1, round(image.width * working))))

    def enlarged(self, maps: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
        """(c, h, w) float32 -> (c, H, W), bilinear between two pixels each way, also where it gets smaller."""
        if maps.shape[1:] == size:
            return maps
        found = np.empty((len(maps), *size), np.float32)
        rows, columns = (_taps(given, wanted) for given, wanted in zip(maps.shape[1:], size, strict=True))

        def one(place: int) -> None:
            low, high, share = rows
            lines = maps[place, low]
            lines += (maps[place, high] - lines) * share[:, None]
            low, high, share = columns
            found[place] = lines[:, low]
            found[place] += (lines[:, high] - found[place]) * share

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(one, range(len(maps))))
        return found

    def _probabilities_at(self, image: Image.Image | Pixels, longest: int) -> NDArray[np.float32]:
        """RGB photo -> (c, h, w) float32, summing to 1 over the classes, seen with `longest` pixels on its side."""
        ratio = longest / max(image.width, image.height)
        inner = max(1, round(image.height * ratio)), max(1, round(image.width * ratio))
        padded = self._padded(resized(image, inner, "bilinear", exact=self.exact))
        return self.look(padded)[:, : inner[0], : inner[1]]

    def _regions(self, probabilities: NDArray[np.float32]) -> list[Region]:
        """Garments at the size of the probabilities.

        Whether a pixel is clothing is decided first: a coat that might be a dress is clothing for sure. Its kind comes
        second, among the kinds of which the photo shows a garment: what is too small or too unsure for one of its own,
        or as well part of a larger one, goes to the runner-up; so does what belongs to the one garment of a photo in
        which nobody is. Regions that are hardly surer clothing than not are left
        out, but for the surest.
        """
        others = [i for i, kind in enumerate(self.config.classes) if kind in (BACKGROUND, PERSON)]
        garments = [i for i in range(len(self.config.classes)) if i not in others]
        total = 1 - probabilities[others].sum(0)
        clothing = np.flatnonzero(total > _CLOTHING)
        least = _MIN_AREA * total.size
        candidates = np.take(probabilities.reshape(len(probabilities), -1), clothing, axis=1)[garments]
        winner = _largest(candidates)
        kinds = np.full(total.shape, -1, np.int8)
        kinds.flat[clothing] = winner
        solid = probabilities[self.config.classes.index(BACKGROUND)] < _CLOTHING
        person = [i for i in others if self.config.classes[i] == PERSON]
        nobody = clothing.size and (probabilities[person].sum(0) > _CLOTHING).mean() <= _NOBODY
        main = int(np.bincount(winner).argmax()) if nobody else -1
        shared = probabilities[garments[main]] / np.maximum(total, _CLOTHING)
        found: dict[int, list[NDArray[np.bool_]]] = {}
        for row in np.flatnonzero(np.bincount(winner, minlength=len(garments)) >= least).tolist():
            own, parts = probabilities[garments[row]], _instances(kinds == row, self._reach(garments[row]), solid)
            large = [part for part in parts if np.count_nonzero(part) >= least]
            if row != main and main >= 0 and self._belongs(kinds == row, kinds == main, shared):
                continue
            if row == main or any((own[part] / total[part]).mean() >= _MIN_FRACTION for part in large):
                found[row] = parts
        for row in _ambiguous({row: self.config.classes[garments[row]] for row in found}, winner, candidates):
            del found[row]
        kept = list(found)
        stray = ~np.isin(winner, kept)
        if kept and stray.any():
            second = np.array(kept, np.int8)[_largest(candidates[kept][:, stray])]
            kinds.flat[clothing[stray]] = second
            for row in np.unique(second).tolist():
                found[row] = _instances(kinds == row, self._reach(garments[row]), solid)
        regions = []
        for row, masks in found.items():
            for mask in masks:
                if np.count_nonzero(mask) >= least:
                    score = float(total[mask].mean())
                    regions.append(Region(mask_box(mask), mask, score, self.config.classes[garments[row]]))
        surest = max((region.score for region in regions), default=0.0)
        return [region for region in regions if region.score >= min(_MIN_SCORE, surest)]

    @staticmethod
    def _belongs(mask: NDArray[np.bool_], garment: NDArray[np.bool_], shared: NDArray[np.float32]) -> bool:
        """Whether a kind is part of the largest one, where nobody is in the photo: a print, a pocket, a fold.

        So it is if the two touch, unless it is large and surely not of the largest kind: a skirt laid below a shirt.
        """
        large = np.count_nonzero(mask) >= _BESIDE * np.count_nonzero(garment)
        return _touch(mask, garment) and (not large or float(shared[mask].mean()) >= _SHARED)

    def _padded(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) uint8 -> (1, 3, h', w') float32, normalized, ones to the right and below up to whole strides."""
        height, width, channels = levels.shape
        how = Preprocessing(size=(height, width), mean=self.config.mean, std=self.config.std)
        padded = np.ones((1, height + -height % _STRIDE, width + -width % _STRIDE, channels), np.float32)
        padded[0, :height, :width] = np.moveaxis(how.normalize(levels), 0, -1)
        return np.moveaxis(padded, -1, 1)

    def _reach(self, index: int) -> float:
        return _REACH.get(self.config.classes[index], 0.75)

    def _region_in_box(
        self, probabilities: NDArray[np.float32], box: NDArray[np.float32], size: tuple[int, int]
    ) -> Region:
        """The main garment inside a box, by the family of kinds that fills most of it."""
        scale = probabilities.shape[1] / size[0], probabilities.shape[2] / size[1]
        covered = pixel_box(box * [scale[1], scale[0], scale[1], scale[0]], *probabilities.shape[1:])
        inside = probabilities[:, *covered]
        kinds = {kind: i for i, kind in enumerate(self.config.classes) if kind not in (BACKGROUND, PERSON)}
        families = [[kinds[kind] for kind in family if kind in kinds] for family in FAMILIES]
        families += [[i] for kind, i in kinds.items() if not any(kind in family for family in FAMILIES)]
        main = max(filter(None, families), key=lambda members: float(inside[members].sum()))
        best = max(main, key=lambda i: float(inside[i].sum()))
        others = [i for i in range(len(inside)) if i not in main]
        together, rival = inside[main].sum(0), inside[others].max(0)  # kinds of one family add up
        mask = np.zeros(probabilities.shape[1:], bool)
        mask[covered] = together > 0.5 * np.maximum(together, rival)
        if not mask.any():
            mask[covered] = True
        score = float(probabilities[main].sum(0)[mask].mean())
        region = _at_size(Region(mask_box(mask), mask, score, self.config.classes[best]), size)
        whole = box_mask(box, *size)
        own = region.mask & whole
        x0, y0, x1, y1 = (float(value) for value in box)
        return Region((x0, y0, x1, y1), own if own.any() else whole, score, region.kind)


def _ambiguous(names: dict[int, str], winner: NDArray[np.int8], probabilities: NDArray[np.float32]) -> list[int]:
    """Of the kinds in some rows, those that where they win might nearly as well be a larger one of their family.

    A jacket and a shirt below it are each sure of their kind; a jacket that is half a shirt is one garment.
    """
    by_size = sorted(names, key=lambda row: np.count_nonzero(winner == row))
    ambiguous = []
    for place, row in enumerate(by_size):
        family = next((family for family in FAMILIES if names[row] in family), ())
        own = winner == row
        rivals = [probabilities[rival][own].sum() for rival in by_size[place + 1 :] if names[rival] in family]
        if rivals and max(rivals) > _RIVAL * probabilities[row][own].sum():
            ambiguous.append(row)
    return ambiguous


def _at_size(region: Region, size: tuple[int, int]) -> Region:
    """The region of a photo of another size: its mask resized with smooth edges, its box around it.

    A large photo's masks are kept compressed: beside the photo they would be the most of all memory.
    """
    if region.mask.shape == size:
        return region
    levels = Image.fromarray(np.where(region.mask, np.uint8(255), np.uint8(0)))
    mask = np.asarray(levels.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127
    sized = Region(mask_box(mask), mask, region.score, region.kind)
    return sized._compressed() if mask.size > _LARGE else sized


def _largest(rows: NDArray[np.float32]) -> NDArray[np.int8]:
    """(k, n) -> (n,) in which row each column is largest, the first one of equals, in a tenth of argmax's time."""
    order = np.arange(len(rows), 0, -1, dtype=np.int8)
    first = ((rows == rows.max(0)).view(np.int8) * order[:, None]).max(0)
    winner: NDArray[np.int8] = len(rows) - first
    return winner


def _taps(given: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of the wanted pixels the two given ones around its center, and the share of the second."""
    centers = np.clip((np.arange(wanted) + 0.5) * (given / wanted) - 0.5, 0, given - 1)
    low = centers.astype(np.int64)
    return low, np.minimum(low + 1, given - 1), (centers - low).astype(np.float32)


def _touch(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether pixels of two masks lie side by side."""
    below, right = one[1:] & other[:-1] | one[:-1] & other[1:], one[:, 1:] & other[:, :-1] | one[:, :-1] & other[:, 1:]
    return bool(below.any() or right.any())


def _instances(mask: NDArray[np.bool_], reach: float, solid: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Split the pixels of one kind into garments: parts with a gap below `reach` widths belong together.

    `solid`, (H, W), is where people and clothing are.
    """
    if not mask.any():
        return []
    left, top, right, bottom = (int(side) for side in mask_box(mask))
    labels, places = labeled(mask[top:bottom, left:right])
    count = len(places)
    if count == 1:
        return [mask]
    areas = np.bincount(labels.ravel())[1:]
    parts = [i + 1 for i in np.argsort(-areas).tolist() if areas[i] >= max(_MIN_PART * areas.max(), 4)]
    groups = [parts] if len(parts) == 1 else _grouped(parts, places, reach, solid[top:bottom, left:right])
    garments = [np.zeros_like(mask) for _ in groups]
    for garment, group in zip(garments, groups, strict=True):
        belongs = np.zeros(count + 1, bool)
        belongs[group] = True
        garment[top:bottom, left:right] = belongs[labels]
    return garments


def _grouped(
    parts: list[int], places: list[tuple[slice, slice]], reach: float, solid: NDArray[np.bool_]
) -> list[list[int]]:
    """Parts, largest first, each with the first group that has one near it."""
    groups: list[list[int]] = []
    for part in parts:
        place = places[part - 1]
        near = (group for group in groups if any(_near(place, places[other - 1], reach, solid) for other in group))
        if home := next(near, None):
            home.append(part)
        else:
            groups.append([part])
    return groups


def _near(a: tuple[slice, slice], b: tuple[slice, slice], widths: float, solid: NDArray[np.bool_]) -> bool:
    """Whether two boxes, rows and columns each, have a gap below so many widths of the wider one."""
    gap_y, gap_x = (max(one.start, other.start) - min(one.stop, other.stop) for one, other in zip(a, b, strict=True))
    height, width = (max(one.stop - one.start, other.stop - other.start) for one, other in zip(a, b, strict=True))
    if gap_x >= widths * width and gap_y < 0:
        between = solid[
            max(a[0].start, b[0].start) : min(a[0].stop, b[0].stop),
            min(a[1].stop, b[1].stop) : max(a[1].start, b[1].start),
        ]
        widths = max(widths, _WORN) if between.mean() > 0.5 else widths
    return bool(gap_x < widths * width and gap_y < max(widths * width, height))
