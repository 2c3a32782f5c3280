"""The grammar of wishes, over the words of a vocabulary.

    wish    = { negated | "more" phrase | word }
    negated = operator { operator } phrase { ("or" | "nor" | "and" | ",") phrase } [ "enough" ]
    phrase  = { article } word { word }, up to a comma, a conjunction or a word that begins something new

Operators are kept in `assets/modification_words.json`. "not" and its kin count once; each "without", "lose" or "except"
turns the meaning round, so that "not without a belt" wants it; "less", "too" and "not so" compare. Where an operator is
none of these for sure ("not necessarily red"), or nothing follows it, the words stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection

from fashion_retrieval.gallery.vocabulary import COLOR, DETAIL, WORDS, Part, Sense, Term, Vocabulary, is_noun, tokens_of

_LIGHT, _ENDS, _PLACES, _DEGREES = (frozenset(WORDS[kind]) for kind in ("light", "ends", "places", "degrees"))
_NOUNS, _FILLERS = frozenset(WORDS["nouns"]), frozenset(WORDS["fillers"])
_ARTICLES = frozenset(("a", "an", "any", "some", "such", "the", "this", "that", "these", "those"))
_OPERATORS = {tuple(phrase.split()): kind for kind, phrases in WORDS["operators"].items() for phrase in phrases}
_LONGEST = max(map(len, _OPERATORS))
_BEFORE_TOO = frozenset(("a", "are", "bit", "far", "is", "just", "look", "much", "s", "still", "was", "were", "way"))
_TO = frozenset(("by", "for", "into", "to", "with"))
_EMPTY = _NOUNS | _ARTICLES | _PLACES | _FILLERS


class Reader:
    """Goes through the words of a text once, from left to right."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.tokens = tokens_of(text)
        self.terms = {term.start: term for term in vocabulary.terms(self.tokens)}
        self.parts: list[Part] = []
        self.left: list[int] = []
        self.gone: set[int] = set()
        """Places of the words that don't go into the query."""

    def read(self) -> None:
        """Fill the lists."""
        place = 0
        while place < len(self.tokens):
            place = self._operated(place) or self._suffixed(place) or self._more(place) or self._plain(place)

    def _plain(self, place: int) -> int:
        if term := self.terms.get(place):
            self._add("more" if term.compared else "wanted", term)
            return term.end
        if self.tokens[place].word not in _FILLERS:
            self.left.append(place)
        return place + 1

    def _more(self, place: int) -> int | None:
        """Read "more formal" or "more stripes"."""
        after = place + 1
        if self._word(place) != "more" or not self._inside(after):
            return None
        if term := self.terms.get(after):
            self._add("more", term)
            return term.end
        if self._word(after) in _FILLERS | _ENDS or self._operator(after):
            return None
        self._add("more", Term(DETAIL, self._word(after), after, after + 1))
        return after + 1

    def _suffixed(self, place: int) -> int | None:
        """Read "collarless" or "logo-free"."""
        term, end, word = self.terms.get(place), place + 1, self._word(place)
        if term and self._inside(term.end) and self._word(term.end) == "free":
            end = term.end + 1
        elif term is None and word.endswith("less") and word not in _FILLERS:
            word = word.removesuffix("less")
            term = next(iter(self.vocabulary.terms(tokens_of(word))), None)
        else:
            return None
        if term:
            self._add("unwanted", term, place, end, words=self._said(term.start, term.end) if end > place + 1 else word)
            self.gone |= {*range(place, end)}
        return end if term else None

    def _operated(self, place: int) -> int | None:
        """Read operators and what they speak of."""
        kinds, after = self._operators(place)
        if not kinds:
            return None
        flipped, negated, lessened = kinds.count("flip") % 2 == 1, "not" in kinds, "less" in kinds
        if "unsure" in kinds or (lessened and "flip" in kinds):
            return self._leave(place)
        if "as_said" in kinds or (not lessened and negated == flipped):
            self.gone |= {word for word in range(place, after) if self._word(word) not in _LIGHT}
            return after
        parts, end, enough = self._phrases(after)
        if not parts and self._inside(end) and not lessened:
            return self._leave(place) if kinds == ["not"] and self._inside(end) else None
        if not parts:  # "no, in blue", "with a hood too"
            self.gone |= set() if lessened else {*range(place, end)}
            return end
        sense: Sense = "more" if enough else "less" if lessened else "unwanted"
        start = place
        if len(parts) == 1 and sense in ("less", "more"):
            parts, start = self._about(place, parts)
        for term in parts:
            phrase = term.start == term.end or " " in term.value  # without the articles that stand between its words
            words = term.value.replace("_", " ") if phrase and term.group != COLOR else None
            self._add(sense, term, start, end, words=words)
        self.gone |= {*range(place, after)} | ({end - 1} if enough else {*range(start, end)})
        if self._word(place) in WORDS["operators"]["flip_to"]:  # the "with" of "replace red with blue"
            self.gone.add(end)
            return end + 1
        return end

    def _operators(self, place: int) -> tuple[list[str], int]:
        """The kinds of the operators from here on, with light words between them, and where they end."""
        kinds: list[str] = []
        ahead = after = place
        while ahead == place or self._inside(ahead):
            if found := self._operator(ahead):
                kinds.append(found[0])
                ahead = after = found[1]
            elif "not" in kinds and self._word(place) != "no" and self._inside(ahead) and self._word(ahead) in _DEGREES:
                kinds.append("less")
                ahead = after = ahead + 1
            elif kinds and self._inside(ahead) and self._word(ahead) in _LIGHT:
                ahead += 1
            else:
                break
        if kinds[:1] == ["not"] and kinds[1:] and self._word(after - 1) in ("less", "fewer", "hardly", "barely"):
            return ["unsure"], after
        return kinds, after

    def _operator(self, place: int) -> tuple[str, int] | None:
        for end in range(min(place + _LONGEST, len(self.tokens)), place, -1):
            kind = _OPERATORS.get(tuple(token.word for token in self.tokens[place:end]))
            if kind is None or any(token.opens for token in self.tokens[place + 1 : end]):
                continue
            following = self._skip(end, _ARTICLES)
            if kind == "flip_the" and following == end:
                return None
            if kind == "flip_to":
                term = self.terms.get(following)
                goes_on = term and self._inside(term.end) and self._word(term.end) in _TO
                return ("flip", end) if goes_on else None
            if self._word(end - 1) == "than" and following not in self.terms:
                return None
            if self._word(place) == "too" and not self._inside(following):
                return None
            return "flip" if kind == "flip_the" else kind, end
        return None

    def _phrases(self, place: int) -> tuple[list[Term], int, bool]:
        """What operators speak of: terms, where the last one ends, and whether it ends in "enough"."""
        found: list[Term] = []
        term, end = self._phrase(self._skip(place, _LIGHT)) if self._inside(place) else (None, place)
        enough = term is not None and self._inside(end) and self._word(end) == "enough"
        while term is not None:
            found.append(term)
            last = end
            if not (following := self._joined(term, end)):
                break
            term, end = self._phrase(following)
        return found, (last if found else end) + enough, enough

    def _joined(self, term: Term, end: int) -> int | None:
        """Where the next phrase of a list begins that shares its operator: "no stripes, dots or checks"."""
        if end >= len(self.tokens) or self._operator(end):
            return None
        if self.tokens[end].opens and self._word(end) not in ("or", "nor"):
            following, after = self._phrase(self._skip(end, _ARTICLES))
            if following is None or self._operator(end):
                return None
            listed = after < len(self.tokens) and (
                self._word(after) in ("or", "nor") or (self.tokens[after].opens and self._joined(following, after))
            )
            return self._skip(end, _ARTICLES) if listed else None
        if self._word(end) not in ("or", "nor", "and") or self._operator(end + 1):
            return None
        after = self._skip(end + 1, _LIGHT)
        if self._word(end) != "and":
            return after
        following = self.terms.get(end + 1)
        if following is None or self._inside(following.end):
            return None
        nouns = self._noun(term) and self._noun(following) and following.end == end + 2 and not following.compared
        return end + 1 if nouns or term.group == following.group == COLOR else None

    def _phrase(self, place: int) -> tuple[Term | None, int]:
        """A term, or other words as a detail, and where they end."""
        end = place
        while end == place or self._inside(end):
            if end >= len(self.tokens) or self._word(end) in _ENDS or self._operator(end):
                break
            if end > place and self._word(end) in _ARTICLES and self._word(end - 1) not in {*_PLACES, "of"}:
                break
            end = self.terms[end].end if end in self.terms else end + 1
        last = end
        while last > place and self._word(last - 1) in _EMPTY and last - 1 not in self.terms:
            last -= 1
        if last == place:
            return None, end
        term = self.terms.get(place)
        if term and term.end == last:
            return term, end
        words = [token.word for token in self.tokens[place:last] if token.word not in _ARTICLES]
        value = " ".join(words) if len(words) > 1 or words[0].endswith("ss") else words[0].removesuffix("s")
        return Term(DETAIL, value, place, last), end

    def _about(self, place: int, parts: list[Term]) -> tuple[list[Term], int]:
        """Join "too long" to the sleeves that it is said of."""
        before = place - 1
        while before >= 0 and self._word(before) in _BEFORE_TOO and not self.tokens[before + 1].opens:
            before -= 1
        term, last = parts[0], self.parts[-1] if self.parts else None
        if last is None or last.end != before + 1 or self.tokens[before + 1].opens or last.sense != "wanted":
            return parts, place
        sized = {"long": "long_sleeve", "short": "short_sleeve"}.get(self.tokens[term.start].stem)
        if last.value == "sleeves" and sized and term.end == term.start + 1:
            joined = Term(last.group, sized, term.start, term.start)
        elif term.group == DETAIL and last.group != DETAIL and last.value in ("print", "pattern"):
            joined = Term(DETAIL, f"{term.value} {last.words}", term.start, term.start)
        else:
            return parts, place
        self.parts.pop()
        start = self._back(last.start)
        return [joined], start

    def _back(self, place: int) -> int:
        return place - 1 if place and self._word(place - 1) in _ARTICLES and not self.tokens[place].opens else place

    def _leave(self, place: int) -> int:
        """Leave a clause as it is."""
        end = place
        while (end == place or self._inside(end)) and self._word(end) != "but":
            self.left.append(end)
            end += 1
        return end

    def _add(
        self, sense: Sense, term: Term, start: int | None = None, end: int | None = None, *, words: str | None = None
    ) -> None:
        said = words or self._said(term.start, term.end)
        places = (term.start if start is None else start, term.end if end is None else end)
        self.parts.append(Part(sense, term.group, term.value, said, *places, term.part))

    def _noun(self, term: Term) -> bool:
        return is_noun(term.group, self._said(term.start, term.end))

    def _skip(self, place: int, words: Collection[str]) -> int:
        while self._inside(place) and self._word(place) in words and place not in self.terms:
            place += 1
        return place

    def _inside(self, place: int) -> bool:
        """Whether the clause goes on at this place."""
        return place < len(self.tokens) and not self.tokens[place].opens

    def _word(self, place: int) -> str:
        return self.tokens[place].word

    def _said(self, start: int, end: int) -> str:
        return " ".join(token.word for token in self.tokens[start:end])
