"""Teach the text tower of a model the words that people type.

A text as it is typed learns the embedding that the tower gave to the same text in words that it knows. All other texts
keep their embeddings, and their tokens too, which the composer reads: image tower and composer stay as they are.

python -m training.train_words training/configs/typed_compact.toml
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval import checkpoint
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.torch_towers import TorchTowers
from fashion_retrieval.models.zero_shot import PromptCache
from fashion_retrieval.taxonomy import category_prompts
from training.data.corpus import fashion_texts, vocabulary_words
from training.data.manifest import read_held_out, read_lines, read_synonyms, without_held_out
from training.data.typed_words import MADE, TypedWords, contained, read_typed_words, untested
from training.data.word_texts import TypedTexts
from training.data.wordnet import read_nouns
from training.engine import loop
from training.engine.errors import one_line_errors
from training.engine.files import write_text
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import SCHEMA, AtLeastOne, Fraction, NonNegative, Positive, read_settings
from training.engine.weights import save_encoder


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str  # the open data pack
    output: str  # folder of the run and its weights
    init: str  # the model folder whose text tower learns
    words: str  # TOML file of typed words, whose training half is learned
    synonyms: str  # TOML file of other wordings
    held_out: str  # TOML file of words that no training text may contain
    more: str = ""  # TOML file of further words, which train as far as none tests
    wordnet: str = ""  # folder of WordNet's database files, or none
    typed: AtLeastOne  # typed texts
    batch_size: AtLeastOne  # of them in a step, each in two spellings
    known: AtLeastOne  # texts that keep their embeddings
    kept: AtLeastOne  # of them in a step
    general: Fraction  # part of `known` that are single words of general language
    sources: list[NonNegative]  # how often: known vocabulary, typed words, WordNet, short captions
    slips: Fraction  # part of typed texts with a typing error
    category_weight: NonNegative  # of the cross-entropy over categories
    category_scale: Positive  # factor on the cosine in it
    category_margin: NonNegative  # by how much the cosine of the right one is lowered in it
    spelling_weight: NonNegative  # of one minus the cosine of two spellings
    kept_weight: NonNegative  # of the loss that keeps embeddings and tokens
    token_rate: Positive  # factor on the learning rate of the token embeddings
    optimization: OptimizerConfig


@one_line_errors()
def main(config: Path) -> None:
    """Train the text tower and write an open_clip folder, whose image tower is the model's own."""
    settings = read_settings(config, Settings)
    teacher = checkpoint.load(Path(settings.init)).encoder.eval().requires_grad_(requires_grad=False)
    encoder = copy.deepcopy(teacher)
    encoder.clip.text.requires_grad_(requires_grad=True)
    typed, known = _texts(settings)
    output = Path(settings.output)
    rng = loop.generator(settings.optimization.seed)
    sources = torch.multinomial(torch.tensor(settings.sources), settings.typed, replacement=True, generator=rng)
    drawn = [typed.draw(int(source), rng, slips=settings.slips) for source in sources]
    texts = [*(text.text for text in drawn), *(text.other for text in drawn), *known]
    write_text(output / MADE, "".join(f"{text}\n" for text in sorted(contained(typed.tested, texts))))
    tokens, vocabulary = _renumbered(encoder, encoder.tokenizer(texts))
    firsts, seconds, others = tokens.tensor_split([len(drawn), 2 * len(drawn)])
    values = typed.taxonomy.category.values
    places = {value.name: row for row, value in enumerate(values)}
    labels = torch.tensor([places.get(text.category or "", -1) for text in drawn])
    classes = _embed(teacher, [category_prompts(typed.taxonomy.category, value, "plain")[0] for value in values])
    targets = _in_category(_embed(teacher, [text.meant for text in drawn]), labels, classes)

    def loss_fn(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        rows = _similar(firsts, settings.batch_size, generator)
        embeddings = encoder.encode_text(_cut(torch.cat([firsts[rows], seconds[rows]])))
        likeness = (embeddings * targets[rows].repeat(2, 1)).sum(-1)
        spelling = (embeddings[: len(rows)] * embeddings[len(rows) :]).sum(-1)
        wanted = labels[rows].repeat(2)
        cosines = embeddings @ classes.T
        margin = settings.category_margin * (wanted[:, None] == torch.arange(len(classes)))
        logits = settings.category_scale * (cosines - margin)
        category = functional.cross_entropy(logits, wanted, ignore_index=-1)
        right = (cosines.argmax(1) == wanted)[wanted >= 0].float().mean()
        rows = _similar(others, settings.kept, generator)
        kept = _kept_loss(encoder, teacher, _cut(others[rows]), vocabulary)
        loss = (1 - likeness).mean() + settings.spelling_weight * (1 - spelling).mean()
        loss = loss + settings.category_weight * category + settings.kept_weight * kept
        means = {"likeness": likeness, "spelling": spelling, "kept": kept, "right": right}
        return loss, {name: value.mean().item() for name, value in means.items()}

    encoder.train()
    scales = {"text.token_embedding": settings.token_rate}
    modules = nn.ModuleDict({"text": encoder.clip.text})
    loop.train(modules, loss_fn, settings.optimization, output, lr_scales=scales)
    table = teacher.clip.text.token_embedding
    table.weight[vocabulary] = encoder.clip.text.token_embedding.weight.detach()
    encoder.clip.text.token_embedding = table
    save_encoder(encoder.eval(), output)
    typer.echo(f"written to {output}")


def _texts(settings: Settings) -> tuple[TypedTexts, list[str]]:
    """The typed texts, and those that keep their embeddings: of fashion, and single words of general language."""
    data, held_out = Path(settings.data), read_held_out(Path(settings.held_out))
    path = data / "pairs_changes.jsonl"
    changes = [text for row in (read_lines(path, "train") if path.is_file() else ()) for text in row["captions"]]
    fashion = without_held_out(sorted({*fashion_texts(data), *changes}), [*held_out])
    words = read_typed_words(Path(settings.words))
    written = read_typed_words(Path(settings.more)) if settings.more else TypedWords((), {})
    more = untested(words, written)
    typed = TypedTexts(
        words,
        more=more,
        synonyms=read_synonyms(Path(settings.synonyms), held_out),
        held_out=[*held_out],
        data=data,
        nouns=read_nouns(Path(settings.wordnet)) if settings.wordnet else None,
        captions=fashion,
    )
    if settings.more:
        allowed = len(without_held_out([word.text for word in more], [*held_out]))
        typer.echo(f"{settings.more}: {allowed} of {len(written.words)} words train; others test, train, are held out")
    general = sorted({*vocabulary_words().values()} - typed.phrases() - typed.tested)
    pools = [text for text in fashion if text not in typed.tested], without_held_out(general, [*held_out])
    counts = (settings.known - int(settings.general * settings.known), int(settings.general * settings.known))
    rng = random.Random(settings.optimization.seed)
    return typed, [text for pool, n in zip(pools, counts, strict=True) for text in rng.sample(pool, min(n, len(pool)))]


def _renumbered(encoder: Encoder, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens as rows of a table of those that occur, in their order, which the encoder gets; and what they were.

    AdamW updates the whole table in each step, and most of CLIP's vocabulary never occurs.
    """
    vocabulary, renumbered = torch.unique(tokens, return_inverse=True)
    table = encoder.clip.text.token_embedding.weight.detach()[vocabulary]
    encoder.clip.text.token_embedding = nn.Embedding(*table.shape)
    encoder.clip.text.token_embedding.weight = nn.Parameter(table)
    return renumbered, vocabulary


def _similar(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows of texts of similar lengths: of four times as many, drawn and in the order of lengths, one slice."""
    drawn = torch.randint(len(tokens), (4 * count,), generator=generator)
    ordered = drawn[tokens[drawn].argmax(1).argsort(stable=True)]
    first = int(torch.randint(4, (), generator=generator)) * count
    return ordered[first : first + count]


def _cut(tokens: Tensor) -> Tensor:
    """Without the columns behind the longest text."""
    return tokens[:, : int(tokens.argmax(1).max()) + 1]


def _in_category(targets: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Targets that another category than their own is nearest to, moved half of the way to their own: (n, d)."""
    wrong = (labels >= 0) & ((targets @ classes.T).argmax(1) != labels)
    moved = functional.normalize(targets + classes[labels.clamp(0)], dim=-1)
    return torch.where(wrong[:, None], moved, targets)


def _embed(encoder: Encoder, texts: list[str]) -> Tensor:
    """(n, d) float32, L2-normalized."""
    towers = TorchTowers(encoder, torch.device("cpu"), torch.float32)
    return torch.from_numpy(PromptCache(towers).rows(texts))


def _kept_loss(encoder: Encoder, teacher: Encoder, tokens: Tensor, vocabulary: Tensor) -> Tensor:
    """How far tokens, relative to their norm, and embeddings are from the teacher's, the mean over texts: a scalar."""
    states, lengths = encoder.text_tokens(tokens)
    with torch.no_grad():
        wanted, _ = teacher.text_tokens(vocabulary[tokens])
    read = torch.arange(tokens.shape[1]) < lengths[:, None]
    away = (states - wanted).square().sum(-1) / wanted.square().sum(-1)
    rows = torch.arange(len(tokens))
    pooled = functional.cosine_similarity(states[rows, lengths - 1], wanted[rows, lengths - 1])
    return ((away * read).sum(1) / lengths + 1 - pooled).mean()


if __name__ == "__main__":
    typer.run(main)
