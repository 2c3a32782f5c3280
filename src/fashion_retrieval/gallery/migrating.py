"""A gallery's move to another model: its photos are encoded again beside it, then take its place at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fashion_retrieval._utils.checks import check_reading, check_whole
from fashion_retrieval._utils.progress import Advance, progress_bar
from fashion_retrieval.errors import FashionRetrievalError, ImageError, InputError
from fashion_retrieval.gallery.adding import Indexer
from fashion_retrieval.gallery.engines.base import PRECISIONS, SCHEMA_VERSION, Row, VectorStore
from fashion_retrieval.gallery.info import MigrationReport, model_settings
from fashion_retrieval.gallery.items import LARGEST_BATCH, Item, recognized_fields
from fashion_retrieval.inference.vectors import check_vectors
from fashion_retrieval.model import FashionModel
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.manifest import same_precision
from fashion_retrieval.taxonomy import Taxonomy


def migrate(
    store: VectorStore,
    model: FashionModel,
    *,
    dimensions: int | None,
    root: str | Path | None,
    on_error: str,
    batch_size: int,
    progress: bool,
    max_pixels: int | None,
) -> MigrationReport:
    """Give the gallery of this store another model; `Gallery.migrate` says how."""
    if not isinstance(model, FashionModel):
        raise InputError(f"new_model must be a FashionModel, got {type(model).__name__}; see from_pretrained")
    check_reading(max_pixels, on_error=on_error)
    check_whole("batch_size", batch_size, LARGEST_BATCH)
    folder = None if root is None else _folder(root)
    taxonomy = Taxonomy.load(store.settings.taxonomy) if store.settings.taxonomy else None
    check_vectors(dimensions, store.settings.precision, model.embedding_dim, PRECISIONS)
    wanted = replace(store.settings, **model_settings(model, taxonomy, dimensions), schema_version=SCHEMA_VERSION)
    if wanted == store.settings and folder is None:  # also after an interruption of what follows the switch
        store.unstage()
        return MigrationReport(store.count(), 0)
    moving = _Moving(store, store.staged(wanted), taxonomy, folder)
    reading: dict[str, Any] = {"skip": on_error == "skip", "batch_size": batch_size, "max_pixels": max_pixels}
    encoded, changed, doing = 0, 1, "migrating"
    while changed:  # until nothing was written to the old gallery meanwhile
        version = store.version()
        indexer = Indexer(moving.staged, model, taxonomy, **reading)
        with progress_bar(doing, store.count(), shown=progress) as advance:
            try:
                changed, failures = moving.catch_up(indexer, advance)
            except ImageError as error:
                raise ImageError(f"{error}; pass root if photos moved, on_error='skip' to leave it out") from error
        encoded, doing = encoded + indexer.added + indexer.updated, "checking"
        if failures and not moving.staged.count():
            remedy = "give the folder in which they lie now as root"
            raise InputError(f"none of the {len(failures)} photos can be read, so the gallery would be empty; {remedy}")
        changed = changed or not store.adopt(moving.staged, version)
    return MigrationReport(store.count(), encoded, tuple(failures))


class _Moving:
    """The rows of a store on their way to the one that is staged beside it.

    Vectors of the same encoder in the same precision are copied; otherwise photos are encoded, and recognized where the
    gallery does that. `root` is the folder in which the photos lie now, None where they are where they were.
    """

    def __init__(self, store: VectorStore, staged: VectorStore, taxonomy: Taxonomy | None, root: Path | None) -> None:
        self.store, self.staged, self.root = store, staged, root
        recognized = recognized_fields(taxonomy) if taxonomy else []
        old, new = store.settings, staged.settings
        same = all(
            getattr(old, name) == getattr(new, name) for name in ("fingerprint", "probes", "embedding_dim", "basis")
        )
        self.copies = (
            same and old.keeps_views and bool(old.dtype and new.dtype and same_precision(old.dtype, new.dtype))
        )
        self.own = [name for name in old.fields if self.copies or name not in recognized]
        self.base = self._base(root) if root else Path()

    def catch_up(self, indexer: Indexer, advance: Advance) -> tuple[int, list[Failure]]:
        """Stage what is new or changed in the store, and remove what is no more in it.

        Returns how many rows changed, and what can't be read, which is not staged.
        """
        changed, ids = 0, list[str]()
        failures: list[Failure] = []
        if self.copies:
            for rows in self._waiting(advance):
                self.staged.write(rows)
                advance(len(rows))
                changed += len(rows)
        else:
            indexer.add(self._items(ids, failures, indexer.skip, advance), advance)
            changed += indexer.added + indexer.updated
            failures += [Failure(one.index, ids[one.index], one.error) for one in indexer.failures]
            failures.sort(key=lambda failure: failure.index)
            self.staged.remove([failure.source for failure in failures])
        for rows in self.staged.scan():
            names = [row.id for row in rows]
            known = self.store.read(names)
            changed += self.staged.remove([name for name in names if name not in known])
        return changed, failures

    def _waiting(self, advance: Advance) -> Iterator[list[Row]]:
        """Rows of the store that are not staged as they are, with their photos' new places."""
        for rows in self.store.scan():
            moved = [self._moved(row) for row in rows]
            staged = self.staged.read([row.id for row in rows])
            waiting = [row for row in moved if self._key(row) != self._key(staged.get(row.id))]
            advance(len(rows) - len(waiting))
            if waiting:
                yield waiting

    def _key(self, row: Row | None) -> object:
        return row and (row.digest, row.photo, row.views, [row.fields[name] for name in self.own])

    def _items(self, ids: list[str], failures: list[Failure], skip: bool, advance: Advance) -> Iterator[Item]:
        """What is to be encoded; its ids are noted, and what has no path is a failure."""
        for rows in self._waiting(advance):
            for row in rows:
                if row.photo is None:
                    error: FashionRetrievalError = InputError(
                        f"photo {row.id!r:.120} was added from no file, so it can't be encoded again; delete it, or "
                        "pass on_error='skip' and add it after the migration"
                    )
                    if not skip:
                        raise error
                    failures.append(Failure(len(ids), row.id, error))
                    advance(failed=True)
                    continue
                index = len(ids)
                ids.append(row.id)
                own = {name: row.fields[name] for name in self.own}
                yield Item(index, row.id, (row.photo, *row.views), row.photo, row.views, own)

    def _moved(self, row: Row) -> Row:
        """The row with the places where its photos lie now."""
        views = tuple(self._place(view) for view in row.views)
        return replace(row, photo=row.photo and self._place(row.photo), views=views)

    def _place(self, photo: str) -> str:
        path = Path(photo)
        if self.root is None:
            return photo
        if not path.is_absolute():
            return str(self.root / path)
        return str(self.root / path.relative_to(self.base)) if self.base in path.parents else photo

    def _base(self, root: Path) -> Path:
        """The folder that the root stands for: the highest above all absolute paths with which one is found there.

        So all keep their places to each other, and no photo is taken for another of the same name.
        """
        photos = [photo for rows in self.store.scan() for row in rows for photo in (row.photo, *row.views)]
        paths = [photo for photo in photos if photo and Path(photo).is_absolute()]
        if not paths:
            return Path()
        common = Path(os.path.commonpath([Path(path).parent for path in paths]))
        highest = [*reversed(common.parents), common]
        found = (base for path in paths for base in highest if (root / Path(path).relative_to(base)).is_file())
        return next(found, common)


def _folder(root: str | Path) -> Path:
    if not isinstance(root, str | Path) or not Path(root).is_dir():
        given = str(root) if isinstance(root, Path) else root
        raise InputError(f"root must be the folder in which the photos lie now, got {given!r:.120}")
    return Path(root).absolute()
