"""Labels of samples as ids of texts, and the embeddings of those texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.taxonomy import Group, Taxonomy, Value, attribute_prompts, category_prompts
from training.data.cuts import CUTS, HIDDEN, OUT_OF_VIEW, SHOWN, UNKNOWN, cut_states
from training.data.manifest import COLORS, Sample, without_held_out
from training.engine.distributed import DistributedEnv, single_process
from training.engine.grad_cache import embed_in_parts

Synonyms = Mapping[str, Mapping[str, list[str]]]
"""Other phrases by group and value."""


class Vocabulary:
    """All prompts of a taxonomy as text ids; free texts are added as they come.

    `category_ids` is (categories, colors) int64, `attribute_ids` (categories, values) by group, and `synonym_ids`
    (categories, values, n): other wordings, repeated to the longest list. `fabric_ids` has a text for each
    color, and one for any; `absent` is the value of what is out of view, by group.
    """

    def __init__(self, taxonomy: Taxonomy, synonyms: Synonyms | None = None) -> None:
        self.taxonomy = taxonomy
        self.texts: list[str] = []
        self._ids: dict[str, int] = {}
        self.categories = {value.name: row for row, value in enumerate(taxonomy.category.values)}
        self.values = {g.name: {v.name: row for row, v in enumerate(g.values)} for g in taxonomy.attributes}
        self.groups = tuple(self.values)
        values = taxonomy.category.values
        self.category_ids = torch.tensor(
            [[self.add(category_prompts(taxonomy.category, value, color)[0]) for color in COLORS] for value in values]
        )
        self.attribute_ids = {
            group.name: torch.tensor(
                [[self.add(attribute_prompts(group, v, value)[0]) for v in group.values] for value in values]
            )
            for group in taxonomy.attributes
        }
        self.synonym_ids = {
            g.name: self._synonyms(g, values, (synonyms or {}).get(g.name, {})) for g in taxonomy.attributes
        }
        self.fabric_ids = torch.tensor([self.add(f"a photo of {color} fabric") for color in (*COLORS, "plain")])
        self.absent = {g: self.values[g][name] for g, name in OUT_OF_VIEW.items() if name in self.values.get(g, ())}

    def _synonyms(self, group: Group, categories: Sequence[Value], phrases: Mapping[str, list[str]]) -> Tensor:
        longest = max(1, *(len(phrases.get(value.name, ())) for value in group.values))
        rows = []
        for category in categories:
            for value in group.values:
                named = replace(value, phrases=tuple(phrases.get(value.name, ())) or value.phrases[:1])
                ids = [
                    self.add(prompt) for prompt in attribute_prompts(group, named, category)[:: len(group.templates)]
                ]
                rows.append([ids[place % len(ids)] for place in range(longest)])
        return torch.tensor(rows).view(len(categories), len(group.values), longest)

    def add(self, text: str) -> int:
        """The id of a text, new or known."""
        if text not in self._ids:
            self._ids[text] = len(self.texts)
            self.texts.append(text)
        return self._ids[text]


@dataclass(frozen=True, slots=True)
class LabelTable:
    """One row a sample; -1 is unknown."""

    vocabulary: Vocabulary
    category: Tensor  # (n,) int64, for the prompts
    color: Tensor  # (n,) int64
    targets: dict[str, Tensor]  # (n, values) float32 by group and "category"; rows of zeros are unknown
    category_text: Tensor  # (n,) int64, the text of L_c
    attribute_texts: Tensor  # (n, groups + 2) int64, the texts of L_a: a prompt by group, then two of the photo's
    weights: Tensor  # (n,) float64, the sampling weight
    states: Tensor  # (n, cuts, groups) int64, what cuts make of the groups: `training.data.cuts.cut_states`

    def texts_of(self, rows: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor]:
        """The texts of L_c, (g,) int64, and of L_a, (g, groups + 2), of garments shown by these rows of `CUTS`.

        What is hidden has the text of its absence, a strip that of a fabric of its color and no text of the photo's.
        """
        category_text, attribute_texts = self.category_text[rows], self.attribute_texts[rows].clone()
        states, category = self.states[rows, cuts], self.category[rows].clamp(min=0)
        for place, group in enumerate(self.vocabulary.groups):
            column, state = attribute_texts[:, place], states[:, place]
            column = torch.where(state == UNKNOWN, -1, column)
            if group in self.vocabulary.absent:
                absence = self.vocabulary.attribute_ids[group][category, self.vocabulary.absent[group]]
                column = torch.where(state == HIDDEN, absence, column)
            attribute_texts[:, place] = column
        strip = cuts == [*CUTS].index("strip")
        fabric = self.vocabulary.fabric_ids[self.color[rows]]
        attribute_texts[strip, len(self.vocabulary.groups) :] = -1
        return torch.where(strip, fabric, category_text), attribute_texts

    def categories(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Prompts of every category in each sample's color (a random one if unknown), and the targets."""
        color = self.color[rows]
        rng = torch.randint(len(COLORS), color.shape, generator=generator)
        return self.vocabulary.category_ids.T[torch.where(color < 0, rng, color)], self.targets["category"][rows]

    def colors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts of every color of each sample's category, and the targets."""
        category = self.category[rows]
        label = torch.where(category < 0, -1, self.color[rows])
        return self.vocabulary.category_ids[category.clamp(min=0)], one_hot(label, len(COLORS))

    def attributes(
        self, rows: Tensor, group: str, cuts: Tensor, generator: torch.Generator, reworded: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Prompts of every value of the group for each sample's category, and the targets, of garments shown by `cuts`.

        A prompt is replaced by one of its other wordings with probability `reworded`.
        """
        category = self.category[rows].clamp(min=0)
        usual, others = self.vocabulary.attribute_ids[group][category], self.vocabulary.synonym_ids[group][category]
        if reworded:
            chosen = torch.randint(others.shape[-1], usual.shape, generator=generator)
            other = others.gather(-1, chosen[..., None])[..., 0]
            usual = torch.where(torch.rand(usual.shape, generator=generator) < reworded, other, usual)
        state, targets = self.states[rows, cuts, self.vocabulary.groups.index(group), None], self.targets[group][rows]
        absence = one_hot(torch.tensor([self.vocabulary.absent.get(group, -1)]), targets.shape[1])
        return usual, torch.where(state == SHOWN, targets, torch.where(state == HIDDEN, absence, 0.0))


def one_hot(labels: Tensor, count: int) -> Tensor:
    """(n,) int64 -> (n, count) float32; a row of zeros for -1."""
    return functional.one_hot(labels + 1, count + 1)[:, 1:].float()


def encode_samples(
    samples: Sequence[Sample], vocabulary: Vocabulary, held_out: list[str], balance: float
) -> LabelTable:
    """Turn labels into ids. Free texts that contain a held-out word are dropped."""
    groups = vocabulary.groups
    label = torch.tensor([vocabulary.categories.get(s.category or "", -1) for s in samples])
    targets = {"category": _targets(samples, "category", label, vocabulary.categories)}
    category = torch.where(targets["category"].any(1), targets["category"].argmax(1), -1)
    color = torch.tensor([COLORS.index(s.color) if s.color else -1 for s in samples])
    labels = {
        g: torch.tensor([vocabulary.values[g].get(s.attributes.get(g, ""), -1) for s in samples]).where(label >= 0, -1)
        for g in groups
    }
    targets |= {g: _targets(samples, g, labels[g], vocabulary.values[g]) for g in groups}
    category_text, names, others = [], [], []
    for row, sample in enumerate(samples):
        free = without_held_out(list(sample.texts), held_out)
        known = int(label[row]) >= 0 and int(color[row]) >= 0
        prompt = int(vocabulary.category_ids[label[row], color[row]]) if known else -1
        category_text.append(prompt if known or not free else vocabulary.add(free[-1]))
        names.append(vocabulary.add(free[0]) if free else -1)
        others.append(vocabulary.add(free[1]) if len(free) > 1 else -1)
    columns = [
        torch.where(labels[g] >= 0, vocabulary.attribute_ids[g][category.clamp(min=0), labels[g].clamp(min=0)], -1)
        for g in groups
    ]
    fallback = vocabulary.add("a photo of a garment")
    text = torch.tensor([fallback if i < 0 else i for i in category_text])
    texts = torch.stack([*columns, torch.tensor(names), torch.tensor(others)], dim=1)
    states = cut_states(samples, vocabulary.taxonomy)
    return LabelTable(vocabulary, category, color, targets, text, texts, _weights(samples, balance), states)


def _targets(samples: Sequence[Sample], group: str, labels: Tensor, places: Mapping[str, int]) -> Tensor:
    """One-hot labels, and soft labels of samples without one: (n, values)."""
    targets = one_hot(labels, len(places))
    for row, sample in enumerate(samples):
        if labels[row] < 0:
            for name, probability in sample.soft_labels.get(group, {}).items():
                targets[row, places[name]] = probability
    return targets


def _weights(samples: Sequence[Sample], balance: float) -> Tensor:
    """Sampling weights: the rarest label of a sample, its count to the power -balance."""
    labels = [[("category", _category(s)), *s.attributes.items()] for s in samples]
    counts = Counter(label for of_sample in labels for label in of_sample)
    rarest = [min(counts[label] for label in of_sample) for of_sample in labels]
    return torch.tensor(rarest, dtype=torch.float64).pow(-balance)


def _category(sample: Sample) -> str | None:
    """The labeled category, or the most probable one."""
    soft = sample.soft_labels.get("category", {})
    return sample.category or max(soft, key=lambda name: soft[name], default=None)


class TextEmbeddingCache:
    """Embeddings of texts by id: computed once with a locked text tower, in each step with a trainable one."""

    def __init__(
        self,
        encoder: Encoder,
        texts: list[str],
        *,
        locked: bool,
        env: DistributedEnv | None = None,
        micro_batch: int = 0,
    ) -> None:
        """Tokenize the texts, and embed them, each process its part, if the tower is locked."""
        self.encoder, self.env, self.micro_batch = encoder, env or single_process(), micro_batch
        self.device = next(encoder.parameters()).device
        self.tokens = encoder.tokenizer(texts)
        self.table = self._encode_all() if locked else None

    def embed(self, *ids: Tensor) -> list[Tensor]:
        """Several (…) int64 -> (…, d) each, L2-normalized; a trainable tower embeds each text once for all of them."""
        if self.table is not None:
            return [self.table[part.to(self.device)] for part in ids]
        unique, inverse = torch.unique(torch.cat([part.flatten() for part in ids]), return_inverse=True)
        padded = torch.cat([unique, unique[-1:].expand(-len(unique) % self.env.world_size)])
        own = embed_in_parts(self._encode, padded[self.env.rows(len(padded))], self.micro_batch)
        table = self.env.all_gather(own)
        places = torch.split(inverse.to(self.device), [part.numel() for part in ids])
        # Unlike indexing, an embedding look-up adds up its gradient in the same order each time.
        return [
            functional.embedding(place, table).view(*part.shape, -1) for part, place in zip(ids, places, strict=True)
        ]

    def _encode(self, ids: Tensor) -> Tensor:
        tokens = self.tokens[ids]
        longest = int(tokens.argmax(1).max()) + 1
        return self.encoder.encode_text(tokens[:, :longest].to(self.device))

    @torch.no_grad()
    def _encode_all(self) -> Tensor:
        order = self.tokens.argmax(1).argsort()
        parts = [self._encode(chunk) for chunk in torch.split(order, 512)]
        table = torch.empty(len(order), parts[0].shape[1], device=self.device)
        table[order.to(self.device)] = torch.cat(parts)
        return table
