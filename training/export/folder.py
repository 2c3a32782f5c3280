"""A model folder that is written only after it was read back and found to be what was trained."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint import Bundle, stale_exports
from training.export.compare import compare
from training.export.parts import check_output
from training.export.recipe import Settings


def publish(bundle: Bundle, settings: Settings, *, source: Bundle | None = None) -> None:
    """Save a bundle as the recipe's output, after a copy was saved, loaded again and compared.

    Files of an earlier model go, exported models of the same weights stay.

    What was saved must agree with `source`, by default the bundle itself.

    Raises:
        ConfigError: The output holds something other than a model.
        WeightsError: The saved model is too far from the trained one; the output is as it was.
    """
    output = Path(settings.output).resolve()
    check_output(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    model = FashionModel(bundle, model_id=settings.card_id, dtype="float32")
    trained = FashionModel(source, model_id=settings.card_id, dtype="float32") if source else model
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True) as parent:
        draft = model.save_pretrained(Path(parent, output.name), card_id=settings.card_id)
        saved = FashionModel.from_pretrained(draft, device=trained.device, dtype="float32", backend="torch")
        agreement = compare(trained, saved)
        agreement.check(least_cosine=settings.least_cosine, least_pixels=settings.least_pixels)
        names = {path.name for path in draft.iterdir()}
        stale = stale_exports(output, bundle, saved.config.weights_dtype)
        model.save_pretrained(output, card_id=settings.card_id)
        for path in output.iterdir():
            if path.is_file() and path.name not in names:
                path.unlink()
    typer.echo(agreement)
    for name in stale:
        typer.echo(f"{name} held other weights and is gone; export the model again")
    size = sum(path.stat().st_size for path in output.iterdir())
    typer.echo(f"{settings.name} written to {output}: {size / 1e6:.1f} MB, encoder {saved.fingerprint[:12]}…")
