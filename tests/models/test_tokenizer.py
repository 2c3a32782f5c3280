"""CLIP's tokens without open_clip: token for token its own."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest

from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models.tokenizer import ClipTokenizer

HARD = {
    "entities of HTML": ["&lt;b&gt; &amp;amp; dress", "&nbsp;red&nbsp;&nbsp;", "&#x27;s", "&amp;#x27;s"],
    "encodings to mend": ["schÃ¶n cafÃ©", "don\u2019t", "\ufeffred", "a\u00adb", "\ufb01ne \uff26\uff35\uff2c\uff2c"],
    "signs beside letters": ["👗👠 dress 👩\u200d👩\u200d👧", "a_b-c", "!!!!!", "'", "''s",
        "½ Ⅷ ٣ ٪٪", "\U0001d49c\U0001d4d1 \U0001d7d9\U0001d7da"],
    "other scripts": ["赤いドレス 连衣裙", "платье", "หมวก", "कपड़े", "가방"],
    "combining marks": ["e\u0301te\u0301 n\u0303", "\u0345\u0307", "\u0301"],
    "apostrophes": ["it's don't we're they've I'm he'll she'd", "'S 'T 'RE", "'\u017f", "can'ts 's's"],
    "numbers": ["1234 3.14", "size 10-12"],
    "long texts": ["red " * 200, "x" * 5000, "a, " * 38, "a " * 75, "a " * 76],
    "marks": [
        "<start_of_text> red", "!<start_of_text> red", "a<start_of_text>b", "<start_of_text><end_of_text>",
        "_<end_of_text>",
        "a!<start_of_text><end_of_text>", "x <END_OF_TEXT> y", "<<start_of_text>>", "<end_of_text", "'s<start_of_text>",
        "<\u017ftart_of_text>",
    ],
    "spaces": ["a  b\n\n c\t\r d", " red ", "a\u2003b\u00a0c\x85d\u2028e"],
    "cases": ["RED DRESS", "İstanbul \u0131I", "\u01c5 \u00df \u1e9e"],
    "nothing": ["", "   ", "\u200b", "&nbsp;"],
    "control characters": ["\x00\x01\x1c\x85\u2028", "a\x00b\x7fc\x1fd"],
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer.of_open_clip(77)


@pytest.mark.parametrize("texts", HARD.values(), ids=HARD)
def test_tokens_are_those_of_open_clip(tokenizer: ClipTokenizer, texts: list[str]) -> None:
    found = tokenizer(texts)
    assert found.shape == (len(texts), 77)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, open_clip.tokenize(texts).numpy())


@pytest.mark.parametrize("letters", [range(0x250), range(0x3000), range(sys.maxunicode + 1)])
def test_tokens_of_letters_drawn_from_all_of_unicode(tokenizer: ClipTokenizer, letters: range) -> None:
    draw = random.Random(0)
    known = [place for place in letters if not 0xD800 <= place < 0xE000]
    texts = ["".join(map(chr, draw.choices(known, k=draw.randrange(1, 30)))) for _ in range(500)]
    np.testing.assert_array_equal(tokenizer(texts), open_clip.tokenize(texts).numpy())


def test_words_as_a_user_writes_them(tokenizer: ClipTokenizer) -> None:
    assert tokenizer(["a red dress"])[0, :6].tolist() == [49406, 320, 736, 2595, 49407, 0]


@pytest.mark.parametrize("length", [1, 2, 5, 32])
def test_a_text_is_cut_off_before_its_end_mark(length: int) -> None:
    texts = ["a long red dress with a belt", "red", ""]
    found = ClipTokenizer.of_open_clip(length)(texts)
    np.testing.assert_array_equal(found, open_clip.tokenize(texts, length).numpy())


def test_no_text_has_no_tokens(tokenizer: ClipTokenizer) -> None:
    assert tokenizer([]).shape == (0, 77)


def test_a_missing_vocabulary_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "words.gz"
    tokenizer = ClipTokenizer(path, 77)
    with pytest.raises(
        WeightsError, match=r"^expected CLIP's vocabulary at .*words.gz, found none; install open_clip_"
    ):
        tokenizer(["a dress"])
