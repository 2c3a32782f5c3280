"""Embed all prompts of a model's taxonomy once, so that recognition finds them in the model's folder.

    python -m training.embed_prompts --model runs/agcn --out runs/agcn_ready

`--out` gets the model with its `prompts.safetensors`; embeddings and results are what they were but for the rounding to
float16. Make it again after the encoder or the taxonomy has changed: prompts of another encoder are refused, and texts
that are not there are embedded as ever.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.extras import Prompts
from fashion_retrieval.checkpoint.folder import load
from fashion_retrieval.hub.download import EMBEDDED, resolve
from training.engine.errors import one_line_errors


@one_line_errors()
def main(
    out: Annotated[Path, typer.Option(help="Folder for the model with its prompts.")],
    model: str = EMBEDDED,
) -> None:
    """Embed them by torch in float32 and write the model."""
    bundle = load(resolve(model))
    plain = replace(bundle, extras=replace(bundle.extras, prompts=None))
    fashion = FashionModel(plain, model_id=model, device="cpu", dtype="float32")
    texts = fashion.recognizer().every_prompt()
    prompts = Prompts.of(texts, fashion.encode(texts=texts, progress=True))
    ready = replace(plain, extras=replace(plain.extras, prompts=prompts))
    FashionModel(ready, model_id=model, device="cpu", dtype="float32").save_pretrained(out)
    typer.echo(f"{len(texts)} prompts embedded into {out}")


if __name__ == "__main__":
    typer.run(main)
