"""The text files and photo folders of DeepFashion, in the layouts of its releases and copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from training.data.io import shown


class Faults:
    """Faults by kind, each with its places, so that one line can name them all."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str | int) -> None:
        """Note a fault; the message is its kind, then its place: "box of no area in train_bbox.txt line", 17."""
        self._places.setdefault(kind, []).append(str(place))

    def lines(self, most: int | None = 8) -> list[str]:
        """One text for each kind, with at most so many places and the number of the others."""
        return [f"{kind} {shown(places, most)}" for kind, places in self._places.items()]


def subfolders(parent: Path, name: str) -> list[Path]:
    """Folders of that name in any case, the exact one first."""
    found = [path for path in parent.iterdir() if path.name.lower() == name.lower() and path.is_dir()]
    return sorted(found, key=lambda path: (path.name != name, path.name))


def annotation_folder(root: Path) -> Path | None:
    """`Anno_fine` in any case, at the root or inside `Anno`."""
    if not root.is_dir():
        return None
    parents = [root, *subfolders(root, "Anno")]
    return next((folder for parent in parents for folder in subfolders(parent, "Anno_fine")), None)


def read_rows(path: Path, faults: Faults) -> list[str] | None:
    """Stripped lines, without empty ones at the file's end; None if it can't be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except FileNotFoundError:
        faults.add("missing annotation file", path.name)
    except (OSError, UnicodeDecodeError) as error:
        faults.add(f"can't be read ({error}):", path.name)
    else:
        return [line.strip() for line in lines if lines != [""]]
    return None


def read_list(path: Path, faults: Faults) -> list[str]:
    """Rows of a file that starts with their number and the column names."""
    lines = read_rows(path, faults) or []
    rows = lines[2:]
    if not lines or not lines[0].isdigit() or int(lines[0]) != len(rows):
        first = f"{lines[0]!r:.20}" if lines else "nothing"
        faults.add(f"{path.name} says {first} in line 1 and has rows:", len(rows))
    return rows


def integers(line: str, count: int) -> tuple[int, ...] | None:
    """The line's integers, or None unless it has `count` of them."""
    try:
        values = tuple(int(word) for word in line.split())
    except ValueError:
        return None
    return values if len(values) == count else None


def photo_id(path: str) -> str | None:
    """A photo's id in both releases, `<item>/img_00000037`; None if the path leads outside or names no item.

    `img/<item>/img_00000037.jpg` is one release, `img_highres_subset/<item>-img_00000037.jpg` the other; items have
    hyphens of their own.
    """
    posix = PurePosixPath(path.replace("\\", "/"))
    folders, stem = posix.parts[1:-1], posix.stem
    if posix.is_absolute() or ".." in posix.parts or ":" in path:
        return None
    if folders:
        return "/".join((*folders, stem))
    item, hyphen, name = stem.rpartition("-")
    return f"{item}/{name}" if hyphen and item and name and len(posix.parts) == 2 else None


class PhotoFolders:
    """Finds the photos of a root: in `img/` or `Img/img/`, in any case, one folder for each item or flat."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bases = [root, *subfolders(root, "img")]
        self._named: dict[str, list[Path]] = {}

    def find(self, path: str) -> Path:
        """The file of an annotated path; if it is missing, the path it should have."""
        return next((place for place in self._places(path) if place.is_file()), self._root / path)

    def _places(self, path: str) -> Iterator[Path]:
        first, *rest = PurePosixPath(path.replace("\\", "/")).parts
        for folder in self._folders(first):
            yield folder.joinpath(*rest)
        if len(rest) == 1:
            item, _, name = rest[0].rpartition("-")
            for folder in self._folders("img"):
                yield folder / item / name

    def _folders(self, name: str) -> list[Path]:
        if name not in self._named:
            self._named[name] = [folder for base in self._bases for folder in subfolders(base, name)]
        return self._named[name]
