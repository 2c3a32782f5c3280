"""Which files of a folder are photos, and what is said of the others. Names decide; no file is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

_JPEG = {".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"}
_READ = _JPEG | {".avif", ".avifs", ".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"}
_HEIF = {".heic", ".heif", ".hif"}
_RAW = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos"),
    *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
_VIDEO = {".3gp", ".avi", ".m4v", ".mov", ".mp4", ".webm"}
_UNREAD = (
    _RAW
    | _VIDEO
    | {".ai", ".eps", ".exr", ".j2k", ".jp2", ".jpx", ".jxl", ".jxr", ".pdf", ".psb", ".psd", ".svg", ".xcf"}
)
PHOTOS = _READ | _HEIF
"""Endings of photos; a photo named by itself may have any name."""

_HIDDEN, _OTHER = "hidden", "of other kinds"
_WHY = dict.fromkeys(_HEIF, "pip install 'fashion-retrieval[heif]'") | dict.fromkeys(
    _UNREAD, "not a format that is read; convert what you need to JPEG"
)


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a folder and its folders: the photos, by their paths below it, and how many others by ending."""

    folder: str
    photos: tuple[str, ...]
    left_out: Mapping[str, int]

    @property
    def report(self) -> str | None:
        """One line about the pictures that are left out, and why; None where there are none."""
        count = sum(self.left_out.values())
        told = f"left out {count} of {len(self.photos) + count} files in {self.folder}: {self._reasons()}"
        return told if self.left_out.keys() - {_OTHER} else None

    @property
    def why_empty(self) -> str:
        """The message for a folder without a photo."""
        held = f", only {self._reasons()}" if self.left_out else ""
        return f"folder {self.folder} holds no photo{held}; expected files ending in {' '.join(sorted(_readable()))}"

    def _reasons(self) -> str:
        groups: dict[str, list[str]] = {}
        for kind, count in sorted(self.left_out.items()):
            groups.setdefault(_WHY.get(kind, ""), []).append(f"{count} {kind}")
        reasoned = (", ".join(kinds) + f" ({why})" for why, kinds in groups.items() if why)
        return ", ".join([*reasoned, *groups.get("", ())])


def sort_files(folder: str, names: Iterable[str]) -> FolderFiles:
    """Tell photos from others by their paths below a folder, "inner/dress.jpg"; the order stays.

    Hidden files and those in hidden folders, such as thumbnails and what was thrown away, are left out.
    """
    readable = _readable()
    photos, left_out = [], Counter[str]()
    for name in names:
        path = PurePosixPath(name)
        ending = path.suffix.lower()
        if ending not in PHOTOS | _UNREAD or path.name.startswith("._"):  # "._dress.jpg": what macOS adds to a file
            left_out[_OTHER] += 1
        elif any(part.startswith(".") for part in path.parts):
            left_out[_HIDDEN] += 1
        elif ending in readable:
            photos.append(name)
        else:
            left_out[ending] += 1
    return FolderFiles(folder, tuple(photos), left_out)


def files_below(folder: Path) -> FolderFiles:
    """The files in a folder of this machine and its folders, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return sort_files(str(folder), (path.relative_to(folder).as_posix() for path in found))


def _readable() -> set[str]:
    return PHOTOS if find_spec("pillow_heif") else _READ
