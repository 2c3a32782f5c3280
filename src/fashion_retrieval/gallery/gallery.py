"""Gallery: photos by their embeddings, to be searched with a query and a filter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from fashion_retrieval._utils.checks import check_id, check_whole
from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.errors import GalleryError, InputError
from fashion_retrieval.gallery.adding import GROUP, Adder
from fashion_retrieval.gallery.engines.base import Engine, Settings, in_the_way
from fashion_retrieval.gallery.fields import field_types
from fashion_retrieval.gallery.from_shards import add_shards
from fashion_retrieval.gallery.items import batched, read_items
from fashion_retrieval.gallery.search import search
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.results import Failure, Match
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.gallery.engines.lancedb import LanceEngine
    from fashion_retrieval.gallery.engines.milvus import MilvusEngine
    from fashion_retrieval.model import FashionModel, TaxonomyInput

_LARGEST_BATCH = 1_024


@dataclass(frozen=True, slots=True)
class AddReport:
    """What became of the photos given to `Gallery.add`.

    Attributes:
        added: New in the gallery.
        updated: There before, with other content, path or metadata.
        unchanged: There before, the same; not encoded again.
        failures: Those that can't be read; what the gallery held of them stays.
    """

    added: int
    updated: int
    unchanged: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """What a gallery is.

    Attributes:
        uri: Where it is, without a password.
        engine: "lancedb" or "milvus".
        model_id: What the model was loaded as when the gallery was made.
        fingerprint: SHA-256 of that model's encoder.
        embedding_dim: Width of the embeddings.
        count: How many photos it holds.
        fields: The type ("str", "int", "float", "bool") by field.
        taxonomy: Name of the vocabulary photos are recognized with, or None where they are not.
        indexed: Whether searches without a filter go through an approximate index.
    """

    uri: str
    engine: str
    model_id: str
    fingerprint: str
    embedding_dim: int
    count: int
    fields: dict[str, str]
    taxonomy: str | None
    indexed: bool


class Gallery:
    """Photos in an engine: LanceDB in a folder or object store, or a Milvus server.

    Made by `Gallery.create` and `Gallery.open`; a context manager. One row a photo, under its id: the embedding of the
    whole photo, its path, and fields to filter by.
    """

    def __init__(self, engine: Engine, model: FashionModel) -> None:
        kept = engine.settings
        if (kept.fingerprint, kept.embedding_dim) != (model.fingerprint, model.embedding_dim):
            raise GalleryError(
                f"gallery {engine.uri} holds embeddings of model {kept.model_id!r} ({kept.fingerprint[:12]}), "
                f"got model {model.model_id!r} ({model.fingerprint[:12]}); load that model, or build a new gallery"
            )
        self._running: Engine | None = engine
        self._model = model
        self._taxonomy = Taxonomy.load(kept.taxonomy) if kept.taxonomy else None

    @classmethod
    def create(
        cls,
        uri: str | Path,
        model: FashionModel,
        *,
        recognize: bool = False,
        taxonomy: TaxonomyInput = None,
        fields: Mapping[str, type] | None = None,
        exist_ok: bool = False,
    ) -> Gallery:
        """A new, empty gallery.

        Args:
            uri: A folder, or an object store ("s3://bucket/gallery"), for LanceDB; "http://host:port/collection" for
                Milvus.
            model: Whose embeddings it will hold.
            recognize: Recognize each photo; its largest garment gives the fields "category", "color" and one for each
                attribute group, None where not visible or not applicable.
            taxonomy: What to recognize, as in `FashionModel.recognize`.
            fields: Further fields of your own: str, int, float or bool by name.
            exist_ok: Go on with a gallery of the same settings, if there is one.

        Raises:
            GalleryError: One is there already, or with `exist_ok` one of other settings; or the place can't be used.
            InputError: A field's name or type can't be used.
        """
        vocabulary = None
        if recognize:
            vocabulary = Taxonomy.load(model.config.taxonomy if taxonomy is None else taxonomy)
        elif taxonomy is not None:
            raise InputError("taxonomy says what to recognize; pass recognize=True with it, or leave it out")
        settings = Settings(
            model_id=model.model_id,
            fingerprint=model.fingerprint,
            embedding_dim=model.embedding_dim,
            taxonomy=vocabulary.to_dict() if vocabulary else None,
            fields=field_types(vocabulary, fields or {}),
        )
        kind, uri = _engine_for(uri), str(uri)
        if not kind.exists(uri):
            return cls(kind.create(uri, settings), model)
        if not exist_ok:
            raise in_the_way(uri)
        gallery = cls.open(uri, model)
        for name, wanted in (("fields", settings.fields), ("taxonomy", settings.taxonomy)):
            if wanted != getattr(gallery._engine.settings, name):
                gallery.close()
                raise GalleryError(f"gallery {uri} was made with other {name}; pass the same, or another place")
        return gallery

    @classmethod
    def open(cls, uri: str | Path, model: FashionModel) -> Gallery:
        """A gallery that was made before.

        Raises:
            GalleryError: None is there, it is no gallery, of a newer version, or of another model.
        """
        engine = _engine_for(uri).open(str(uri))
        try:
            return cls(engine, model)
        except GalleryError:
            engine.close()
            raise

    @classmethod
    def peek(cls, uri: str | Path) -> GalleryInfo:
        """What a gallery is, without a model: which one to load for it.

        Raises:
            GalleryError: None is there, or it is no gallery.
        """
        engine = _engine_for(uri).open(str(uri))
        try:
            return _info(engine)
        finally:
            engine.close()

    def add(
        self,
        images: Iterable[ImageInput],
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        batch_size: int = 1_024,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
    ) -> AddReport:
        """Add photos, or bring those of the same ids up to date. The same call after an interruption goes on.

        A photo that is there with the same content is not encoded again. Photos are written in batches, each of them
        in one piece, when it is full or ten seconds have passed.

        Args:
            images: Photos, read as they are needed.
            ids: A name for each; None takes the path as given, for photos that are paths.
            metadata: Values by field for each; a field it doesn't name keeps its value, None unsets it.
            batch_size: About how many photos are written at a time, from 1 to 1,024.
            on_error: "raise" keeps what came before a photo that can't be read and raises its error; "skip" lists it in
                the report and goes on.
            progress: Show a bar on stderr, with the rate and how many failed.

        Raises:
            InputError: Ids, metadata or a photo can't be used; the message says which.
        """
        if on_error not in ("raise", "skip"):
            raise InputError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        check_whole("batch_size", batch_size, _LARGEST_BATCH)
        engine = self._engine
        items = read_items(images, ids, metadata, engine.settings.types)
        adder = Adder(engine, self._model, self._taxonomy, skip=on_error == "skip", batch_size=batch_size)
        total = len(images) if isinstance(images, Sized) else None
        with progress_bar("adding", total, shown=progress) as advance:
            try:
                for group in batched(items, min(batch_size, GROUP)):
                    adder.add(group, advance)
            finally:
                adder.write()
        engine.settle()
        failures = sorted(adder.failures, key=lambda failure: failure.index)
        return AddReport(adder.added, adder.updated, adder.unchanged, tuple(failures))

    def add_shards(self, folder: str | Path, *, progress: bool = False) -> AddReport:
        """Add the embeddings that `fashion_retrieval.shards.encode_shards` made; no photo is read or encoded.

        The rows are those of `add` with the same ids; the same call after an interruption goes on.

        Args:
            folder: Of the shards, a path or a URI; they must be complete.
            progress: As in `add`.

        Raises:
            GalleryError: The shards are of another model, or this gallery recognizes its photos.
            ShardError: There are no shards, one is missing, or one is damaged.
        """
        return AddReport(*add_shards(self._engine, Folder(str(folder)), progress=progress))

    def search(
        self, query: ArrayLike, top_k: int = 10, *, where: str | None = None, exclude: Collection[str] = ()
    ) -> list[Match]:
        """The photos nearest to a query by cosine, best first; equal scores are in the order of their ids.

        Args:
            query: (D,) or (1, D) floats, of `encode` or `compose`; its length does not matter.
            top_k: How many.
            where: A filter such as "category = 'dress' and not color in ('red', 'pink')"; filtered searches are exact.
            exclude: Ids that must not appear.

        Raises:
            InputError: The query's shape, type or values, `where` or `exclude` can't be used.
        """
        return search(self._engine, query, top_k, where=where, exclude=exclude)

    def get(self, id: str) -> Match:
        """The photo of this id, with a score of 1.

        Raises:
            InputError: There is none.
        """
        row = self._engine.read([id]).get(id) if isinstance(id, str) else None
        if row is None:
            raise InputError(f"gallery {self._engine.uri} has no photo with id {id!r:.120}; ids are those given to add")
        return Match(row.id, 1.0, row.photo, row.fields)

    def delete(self, ids: Collection[str]) -> int:
        """Remove photos; returns how many were there."""
        if isinstance(ids, str):
            raise InputError(f"ids must be a collection, got the text {ids!r:.60}; put it in a list")
        return self._engine.remove([check_id(name, index) for index, name in enumerate(ids)])

    def optimize(self) -> None:
        """Tidy up after much adding, and build or refresh the indices that the size asks for."""
        self._engine.optimize()

    @property
    def info(self) -> GalleryInfo:
        """What this gallery is."""
        return _info(self._engine)

    def close(self) -> None:
        """Give the engine back; a closed gallery can't be used any more."""
        if self._running:
            self._running.close()
        self._running = None

    def __len__(self) -> int:
        return self._engine.count()

    def __bool__(self) -> bool:
        return True

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(self._engine.read([id]))

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({self._running.uri!r}, {self._running.name})" if self._running else "Gallery(closed)"

    @property
    def _engine(self) -> Engine:
        if self._running is None:
            raise GalleryError("this gallery is closed; open it again with Gallery.open")
        return self._running


def _info(engine: Engine) -> GalleryInfo:
    kept = engine.settings
    return GalleryInfo(
        uri=engine.uri,
        engine=engine.name,
        model_id=kept.model_id,
        fingerprint=kept.fingerprint,
        embedding_dim=kept.embedding_dim,
        count=engine.count(),
        fields=dict(kept.fields),
        taxonomy=Taxonomy.load(kept.taxonomy).name if kept.taxonomy else None,
        indexed=engine.indexed(),
    )


def _engine_for(uri: str | Path) -> type[LanceEngine] | type[MilvusEngine]:
    if not isinstance(uri, str | Path) or not str(uri):
        raise InputError(f"a gallery's uri must be a folder or an address, got {uri!r}")
    if str(uri).startswith(("http://", "https://")):
        from fashion_retrieval.gallery.engines.milvus import MilvusEngine

        return MilvusEngine
    from fashion_retrieval.gallery.engines.lancedb import LanceEngine

    return LanceEngine
