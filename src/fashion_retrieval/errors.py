"""Every error this package raises on purpose.

    FashionRetrievalError
    ├── InputError            (ValueError)         an argument that can't be used: dtype, shape, range or value
    │   ├── ImageError        (ValueError)         a photo that can't be read
    │   └── TaxonomyError     (ValueError)         a vocabulary with a fault
    ├── ConfigError           (ValueError)         a configuration file with a fault
    ├── ModelNotFoundError    (FileNotFoundError)  no such model, or not in the cache while offline
    ├── HubError              (ConnectionError)    the Hub refused or did not answer
    ├── GalleryError          (RuntimeError)       a gallery that is missing, in the way, damaged or another model's
    ├── ShardError            (RuntimeError)       shards that are missing, damaged or of other settings; a lost worker
    ├── WeightsError          (ValueError)         truncated, altered or pickled weights, or of another architecture
    ├── MissingExtraError     (ImportError)        an optional dependency is not installed
    └── UnsupportedError      (RuntimeError)       this model does not have that capability

Each message is one line: what was expected, what came, and what to do about it.
"""


class FashionRetrievalError(Exception):
    """Base of every error raised by this package."""

    def __str__(self) -> str:
        # OSError's own __str__ shows only an errno form; a message is always one line here.
        return " ".join(str(self.args[0] if self.args else "").split())


class InputError(FashionRetrievalError, ValueError):
    """An argument that can't be used."""


class ImageError(InputError):
    """A photo that can't be read."""


class TaxonomyError(InputError):
    """A vocabulary with a fault."""


class ConfigError(FashionRetrievalError, ValueError):
    """A configuration with a fault."""


class ModelNotFoundError(FashionRetrievalError, FileNotFoundError):
    """No such model, or not in the cache while offline."""


class HubError(FashionRetrievalError, ConnectionError):
    """The Hub refused or did not answer."""


class GalleryError(FashionRetrievalError, RuntimeError):
    """A gallery that is missing, in the way, damaged, of a newer format, or of another model."""


class ShardError(FashionRetrievalError, RuntimeError):
    """Shards that are missing, damaged or of other settings, a folder that can't hold them, or a worker that died."""


class WeightsError(FashionRetrievalError, ValueError):
    """Weights that are truncated, altered, pickled or of another architecture."""


class MissingExtraError(FashionRetrievalError, ImportError):
    """An optional dependency is not installed."""


class UnsupportedError(FashionRetrievalError, RuntimeError):
    """This model does not have that capability."""
