"""Other spellings of a phrase, by rules that know nothing of what it means."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

import torch

_REGIONAL = (
    ("gray", "grey"), ("color", "colour"), ("jewelry", "jewellery"), ("pajama", "pyjama"), ("check", "chequ"),
    ("woolen", "woollen"), ("ized", "ised"), ("izing", "ising"), ("analog", "analogue"), ("duffel", "duffle"),
    ("sequined", "sequinned"), ("fiber", "fibre"), ("center", "centre"),
)  # fmt: skip
"""American and British spellings."""
_IRREGULAR = (("scarf", "scarves"), ("calf", "calves"))
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_VOWELS = "aeiouy"
_SHORTEST_PART = 3
_SHORTEST_MISTYPED = 5


def spellings(text: str, words: AbstractSet[str]) -> list[str]:
    """Spellings of a phrase other than itself, sorted: spacing, plural and singular, American and British.

    A compound is also split where both parts are among the known `words`.
    """
    found = {text} | _numbers(text)
    found |= {variant for one in [*found] for variant in _regions(one)}
    found |= {variant for one in [*found] for variant in _spacings(one, words)}
    return sorted(found - {text})


def _numbers(text: str) -> set[str]:
    """The plural of the last word, or its singular."""
    for one, many in _IRREGULAR:
        for end, other in ((one, many), (many, one)):
            if text.endswith(end):
                return {text.removesuffix(end) + other, text.removesuffix(end) + one + "s"}
    if not text[-1].isalpha():
        return set()
    if text.endswith("ss"):
        return {text + "es"}
    if text.endswith(("sses", "ches", "shes", "xes")):
        return {text.removesuffix("es")}
    if text.endswith("s"):
        single = text.removesuffix("s")
        return {single, single.removesuffix("ie") + "y"} if single.endswith("ie") else {single}
    if text.endswith(("ch", "sh", "x")):
        return {text + "es"}
    if text.endswith("y") and text[-2:-1] not in _VOWELS:
        return {text + "s", text.removesuffix("y") + "ies"}
    return {text + "s"}


def _regions(text: str) -> set[str]:
    both = [*_REGIONAL, *((british, american) for american, british in _REGIONAL)]
    return {text.replace(here, there) for here, there in both if here in text and there not in text}


def _spacings(text: str, words: AbstractSet[str]) -> set[str]:
    """Each space or hyphen as a space, a hyphen or nothing; all of them; compounds split."""
    found = {re.sub(r"[ -]", joint, text) for joint in (" ", "-", "")} if len(re.findall(r"[ -]", text)) < 3 else set()
    for place in [match.start() for match in re.finditer(r"[ -]", text)]:
        found |= {text[:place] + joint + text[place + 1 :] for joint in (" ", "-", "")}
    *before, last = re.split(r"(?<= )", text)
    for place in range(_SHORTEST_PART, len(last) - _SHORTEST_PART + 1):
        if {last[:place], last[place:].removesuffix("s")} <= words:
            found |= {"".join(before) + last[:place] + joint + last[place:] for joint in (" ", "-")}
    return found


def respaced(text: str, generator: torch.Generator) -> str:
    """The text with one space or hyphen as another of space, hyphen and nothing; as it is if there is none."""
    places = [match.start() for match in re.finditer(r"(?<=[a-z])[ -](?=[a-z])", text)]
    if not places:
        return text
    place = places[int(torch.randint(len(places), (), generator=generator))]
    others = [joint for joint in (" ", "-", "") if joint != text[place]]
    return text[:place] + others[int(torch.randint(2, (), generator=generator))] + text[place + 1 :]


def mistyped(text: str, generator: torch.Generator) -> str:
    """The phrase with one slip in a word of at least five letters; as it is if there is none."""

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    words = [match for match in re.finditer(r"[a-z]+", text) if len(match[0]) >= _SHORTEST_MISTYPED]
    if not words:
        return text
    match = words[pick(len(words))]
    word = match[0]
    place = 1 + pick(len(word) - 2)
    letter = word[place]
    slips = [
        word[:place] + word[place + 1] + letter + word[place + 2 :],
        word[:place] + word[place + 1 :],
        word[:place] + letter + word[place:],
        word[:place] + _neighbor(letter, pick(2)) + word[place + 1 :],
    ]
    if letter in _VOWELS:
        slips.append(word[:place] + _VOWELS[pick(len(_VOWELS))] + word[place + 1 :])
    return text[: match.start()] + slips[pick(len(slips))] + text[match.end() :]


def _neighbor(letter: str, side: int) -> str:
    row = next((row for row in _KEYS if letter in row), letter)
    return row[(row.index(letter) + (1 if side else -1)) % len(row)]
