"""Gallery: images by their embeddings, to be searched with a query and a filter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval._utils.checks import LONGEST_ID, check_id, check_ids, check_reading, check_whole, fits
from fashion_retrieval._utils.deprecation import accept_old_keywords, warn_renamed
from fashion_retrieval._utils.progress import length_of, progress_bar
from fashion_retrieval.errors import GalleryError, InputError
from fashion_retrieval.gallery.compatibility import check_adding, check_model
from fashion_retrieval.gallery.duplicates import find_duplicates
from fashion_retrieval.gallery.engines.base import PRECISIONS, Row, Settings, VectorStore
from fashion_retrieval.gallery.info import AddReport, GalleryInfo, MigrationReport, model_settings, read_info
from fashion_retrieval.gallery.items import LARGEST_BATCH, field_types, read_items
from fashion_retrieval.gallery.places import address_of, budget_of, engine_of
from fashion_retrieval.gallery.searching import Question, answer, to_match
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.inference.vectors import check_vectors
from fashion_retrieval.results import Match, Matches
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel, TaxonomyInput


class Gallery:
    """Images in a vector store: LanceDB in a folder or object store, or a Milvus server.

    Made by `Gallery.create` and `Gallery.open`; a context manager. Each image is one row under its id: the embedding of
    the whole image, its path, and fields to filter by.
    """

    def __init__(self, store: VectorStore, model: FashionModel | None) -> None:
        kept = store.settings
        if model:
            check_model(store, model)
        self._opened: VectorStore | None = store
        self._model = model
        self._taxonomy = Taxonomy.load(kept.taxonomy) if kept.taxonomy else None

    @classmethod
    @accept_old_keywords(recognise="recognize")
    def create(
        cls,
        uri: str | Path,
        model: FashionModel,
        *,
        recognize: bool = False,
        taxonomy: TaxonomyInput = None,
        fields: Mapping[str, type] | None = None,
        exist_ok: bool = False,
        dimensions: int | None = None,
        precision: Literal["float32", "float16", "int8"] = "float32",
        memory_budget: int | None = None,
    ) -> Gallery:
        """Make a new, empty gallery.

        Args:
            uri: A folder, or an object store ("s3://bucket/gallery"), for LanceDB; "http://host:port/collection" for
                Milvus.
            model: The model whose embeddings it will hold.
            recognize: Recognize each image; its largest garment gives the fields "category", "color" and one for each
                attribute group, None where not visible or not applicable.
            taxonomy: What to recognize, as in `FashionModel.recognize`.
            fields: Further fields of your own: str, int, float or bool by name.
            exist_ok: Open the gallery if there is one of the same settings; without `fields`, with any of its own.
            dimensions: Width of its embeddings, as `FashionModel.shorten` makes them; None is the model's.
            precision: How the numbers of an embedding are stored, as in `FashionModel.encode`; scores of "float16"
                differ by at most 0.0005 from those of float32, those of "int8" by about 0.01. LanceDB alone.
            memory_budget: As in `open`.

        Raises:
            GalleryError: There is one already, or with `exist_ok` one of other settings; or the place can't be used.
            InputError: A field's name or type can't be used.
        """
        vocabulary = None
        if recognize:
            vocabulary = Taxonomy.load(model.config.taxonomy if taxonomy is None else taxonomy)
        elif taxonomy is not None:
            raise InputError("taxonomy says what to recognize; pass recognize=True with it, or leave it out")
        check_vectors(dimensions, precision, model.embedding_dim, PRECISIONS)
        settings = Settings(
            taxonomy=vocabulary.to_dict() if vocabulary else None,
            fields=field_types(vocabulary, fields or {}),
            precision=precision,
            **model_settings(model, vocabulary, dimensions),
        )
        kind, uri = engine_of(uri), address_of(uri)
        if not exist_ok or not kind.exists(uri):
            return cls(kind.create(uri, settings, **budget_of(uri, memory_budget)), model)
        gallery = cls.open(uri, model, memory_budget=memory_budget)
        kept = gallery._store.settings
        compared = {"dimensions": "embedding_dim", "precision": "precision"}
        compared |= {} if fields is None else {"fields": "fields"}
        other = next((word for word, name in compared.items() if getattr(kept, name) != getattr(settings, name)), None)
        if other or gallery._taxonomy != vocabulary:
            gallery.close()
            other = other or "recognition or taxonomy"
            raise GalleryError(f"gallery {uri} was made with other {other}; pass the same, or another place")
        return gallery

    @classmethod
    def open(cls, uri: str | Path, model: FashionModel | None, *, memory_budget: int | None = None) -> Gallery:
        """Open a gallery that was made before.

        The model may compute in another dtype or backend than the embeddings of the gallery were computed in: searches
        work, adding is refused. With None, for a model that is no more, all but adding works.

        Args:
            uri: As in `create`.
            model: The model whose embeddings it holds.
            memory_budget: Bytes of memory that the vectors may take; None is 2.5 GiB. Searches of a LanceDB gallery
                within it are exact and quick; of a larger one LanceDB searches on disk, and a warning is logged. A
                number takes as many bytes as it is stored in, and one more.

        Raises:
            GalleryError: There is none, it is no gallery, of a newer version, or of another model.
        """
        store = engine_of(uri).open(address_of(uri), **budget_of(uri, memory_budget))
        try:
            return cls(store, model)
        except BaseException:
            store.close()
            raise

    @classmethod
    def peek(cls, uri: str | Path) -> GalleryInfo:
        """What a gallery is, without a model: which one to load for it.

        Nothing is built or loaded. Where a Milvus server has not loaded the collection, `count` is its estimate and
        `indexed` is False.

        Raises:
            GalleryError: There is none, or it is no gallery.
        """
        with closing(engine_of(uri).open(address_of(uri), load=False)) as store:
            return read_info(store)

    def add(
        self,
        images: Iterable[ImageInput | Sequence[ImageInput]],
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        batch_size: int = 1_024,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
        max_pixels: int | None = None,
    ) -> AddReport:
        """Add images, or update those of the same ids. After an interruption, the same call continues.

        An image that the gallery holds with the same content is not encoded again. Images are written in batches, each
        of them whole or not at all, when one is full or ten seconds have passed.

        Args:
            images: Images, read as they are needed. A list of several of one item is one entry: its embedding is the
                L2-normalized mean of theirs, the first is recognized, and it fails as a whole with any of them.
            ids: A name for each; None takes the path as given, for images that are paths.
            metadata: Values by field for each; a field it doesn't name keeps its value, None unsets it.
            batch_size: About how many images are written at a time, from 1 to 1,024.
            on_error: "raise" keeps what came before an image that can't be read and raises its error; "skip" lists it
                in the report and continues.
            progress: Show a bar on stderr, with the rate and how many failed.
            max_pixels: As in `FashionModel.encode`.

        Raises:
            InputError: Ids, metadata or an image can't be used; the message says which.
            GalleryError: The gallery's embeddings were computed in another dtype or backend than the model's, or its
                attributes were fitted to other labels.
        """
        from fashion_retrieval.gallery.adding import Indexer  # brings torch

        check_reading(max_pixels, on_error=on_error)
        check_whole("batch_size", batch_size, LARGEST_BATCH)
        store, model = self._store, self._needed_model
        check_adding(store, model, self._taxonomy)
        items = read_items(images, ids, metadata, store.settings)
        reading: dict[str, Any] = {"skip": on_error == "skip", "batch_size": batch_size, "max_pixels": max_pixels}
        indexer = Indexer(store, model, self._taxonomy, **reading)
        with progress_bar("adding", length_of(images), shown=progress) as advance:
            indexer.add(items, advance)
        store.wait_until_indexed()
        return AddReport(indexer.added, indexer.updated, indexer.unchanged, tuple(indexer.failures))

    def add_shards(self, folder: str | Path, *, progress: bool = False) -> AddReport:
        """Add the embeddings that `fashion_retrieval.shards.encode_shards` made; no image is read or encoded.

        The rows are those of `add` with the same ids. After an interruption, the same call continues.

        Args:
            folder: The folder of complete shards, a path or a URI.
            progress: As in `add`.

        Raises:
            GalleryError: The shards are of another model, dtype or backend, or this gallery recognizes its images.
            ShardError: There are no shards, one is missing, or one is damaged.
        """
        from fashion_retrieval.gallery.adding import add_shards  # brings torch

        return add_shards(self._store, Folder(str(folder)), self._needed_model, progress=progress)

    def search(
        self,
        query: ArrayLike,
        top_k: int = 10,
        *,
        where: str | None = None,
        exclude: Collection[str] = (),
        negative: ArrayLike | None = None,
        offset: int = 0,
        min_score: float | None = None,
        group_by: str | None = None,
        unique: bool = False,
    ) -> Matches:
        """The images nearest to a query by cosine, best first; equal scores are in the order of their ids.

        While nothing is written, pages taken one by one are the pieces of one long answer.

        Args:
            query: (D,) or (1, D) floats of any norm, from `encode` or `compose`, as wide as the gallery's embeddings or
                as the model's.
            top_k: How many results.
            where: A filter such as "category = 'dress' and not color in ('red', 'pink')"; filtered searches are exact.
            exclude: Ids that must not appear.
            negative: (D,) or (N, D) floats: what the results should not show, from `encode`. Images that are nearer to
                one of them than is usual among the nearest 200 come later, and their scores are lower.
            offset: How many results to pass over; with `top_k` at most 16,383.
            min_score: Leave out images of lower scores, a cosine; with `negative`, of lower lowered scores.
            group_by: A field, as "product_id": only the best image of each of its values; those without one all count.
            unique: Leave out near-duplicates (encoded, resized, slightly cropped or lit anew) of better images.

        Raises:
            InputError: The shape, type or values of the query or of another argument can't be used.
        """
        asked = {"top_k": top_k, "where": where, "exclude": exclude, "negative": negative, "offset": offset}
        return self._answer(query, asked | {"min_score": min_score, "group_by": group_by, "unique": unique})

    def duplicates(self, *, progress: bool = False) -> list[tuple[str, ...]]:
        """The ids of near-duplicates, a tuple for each group of them, as `search` with `unique` tells them.

        A photo belongs to a group if it is a near-duplicate of one that does. Groups and their ids are in the order of
        ids. Each photo is compared with all others, which takes minutes for 100,000, and memory for their embeddings.

        Args:
            progress: As in `add`.
        """
        return find_duplicates(self._store, progress=progress)

    def get(self, id: str) -> Match:
        """The image of this id, with a score of 1.

        Raises:
            InputError: There is none.
        """
        return to_match(self._row(id), 1.0, self._store.settings)

    def embeddings(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings that the gallery holds of these ids, (N, D) float32, L2-normalized: queries for `search`.

        Raises:
            InputError: There is no photo of an id.
        """
        rows = [self._row(id) for id in check_ids("ids", ids)]
        return np.array([row.vector for row in rows], np.float32).reshape(-1, self._store.settings.embedding_dim)

    def delete(self, ids: Collection[str]) -> int:
        """Remove images; returns how many there were.

        Raises:
            InputError: An id can't be one.
        """
        return self._store.remove([check_id(name, index) for index, name in enumerate(check_ids("ids", ids))])

    def optimize(self) -> None:
        """Compact the data after much adding, and build or refresh the indices that the size asks for."""
        self._store.optimize()

    def optimise(self) -> None:
        """Old spelling of `optimize`."""
        warn_renamed("Gallery.optimise()", "Gallery.optimize()")
        self.optimize()

    def migrate(
        self,
        new_model: FashionModel,
        *,
        dimensions: int | None = None,
        root: str | Path | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        batch_size: int = 1_024,
        progress: bool = False,
        max_pixels: int | None = None,
    ) -> MigrationReport:
        """Move to another model: encode all photos again from their files, beside this gallery, then take its place.

        Until then the gallery is searched as before, also by other processes. After an interruption the same call
        continues; what was added, changed or deleted meanwhile is taken over. Then this object has the new model, and
        others that are open raise an error that names it. Fields of recognition are recognized again, with the
        gallery's own taxonomy; your own fields stay. Where the new model's embeddings would be the same, as with
        another composer alone, they are copied.

        Args:
            new_model: The model to move to; also the same in another dtype or backend.
            dimensions: As in `create`.
            root: The folder in which the photos lie now. Relative paths are taken from it. Of absolute ones it replaces
                one folder above them all: the highest with which a photo is found.
            on_error: "raise" stops at the first photo that can't be read and leaves the gallery as it is; "skip" leaves
                such photos out. Those added from arrays or bytes have no file.
            batch_size: As in `add`.
            progress: As in `add`.
            max_pixels: As in `FashionModel.encode`.

        Raises:
            InputError: A photo can't be read, or an argument can't be used.
            GalleryError: The store failed.
        """
        from fashion_retrieval.gallery.migrating import migrate  # brings torch

        reading: dict[str, Any] = {"batch_size": batch_size, "max_pixels": max_pixels, "dimensions": dimensions}
        report = migrate(self._store, new_model, root=root, on_error=on_error, progress=progress, **reading)
        self._model = new_model
        return report

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The vocabulary images are recognized with, or None where they are not."""
        return self._taxonomy

    @property
    def info(self) -> GalleryInfo:
        """What this gallery is."""
        return read_info(self._store)

    def close(self) -> None:
        """Close the vector store; a closed gallery can't be used any more."""
        if self._opened:
            self._opened.close()
        self._opened = None

    def __len__(self) -> int:
        return self._store.count()

    def __bool__(self) -> bool:
        return True

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and fits(id, LONGEST_ID) and bool(self._store.read([id]))

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({self._opened.uri!r}, {self._opened.name})" if self._opened else "Gallery(closed)"

    def _answer(self, query: ArrayLike, asked: dict[str, Any]) -> Matches:
        """`search`; and `preferred` is a filter for those that come before all others."""
        negative = asked.get("negative")
        away = None if negative is None else self._as_wide(negative)
        question = Question.read(self._store.settings, self._as_wide(query), **asked | {"negative": away})
        return answer(self._store, question)

    def _row(self, id: str) -> Row:
        row = self._store.read([id]).get(id) if isinstance(id, str) and fits(id, LONGEST_ID) else None
        if row is None:
            raise InputError(f"gallery {self._store.uri} has no photo with id {id!r:.120}; ids are those given to add")
        return row

    def _as_wide(self, vectors: ArrayLike) -> ArrayLike:
        """Embeddings of the model's width as wide as the gallery's; all else as it is."""
        width, model = self._store.settings.embedding_dim, self._model
        if model is None or width == model.embedding_dim:
            return vectors
        with suppress(InputError, ValueError):  # what has another shape is refused later, unless it is right
            return model.shorten(np.asarray(vectors), width)
        return vectors

    @property
    def _needed_model(self) -> FashionModel:
        if self._model is None:
            kept = self._store.settings
            raise GalleryError(f"adding needs model {kept.model_id!r}; open gallery {self._store.uri} with it")
        return self._model

    @property
    def _store(self) -> VectorStore:
        if self._opened is None:
            raise GalleryError("this gallery is closed; open it again with Gallery.open")
        return self._opened
