"""Mappings that become dataclasses: each fault with its key, what was expected and what came; all in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, with_config

from fashion_retrieval._utils.validation import STRICT, validate
from fashion_retrieval.errors import ConfigError


def _even(number: int) -> int:
    if number % 2:
        raise ValueError(f"'part.even' must be even, got {number}")
    return number


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    size: Annotated[tuple[Annotated[int, Field(gt=0)], int], Field(description="[height, width] in pixels")]
    even: Annotated[int, AfterValidator(_even)] = 0
    names: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    kind: Literal["x", "y"]
    part: Part | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    flag: bool = False
    either: Annotated[str | dict[str, int], Field(description="a name or a mapping of numbers")] = ""
    plain: str | int = ""


def refused(data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(Whole, data, "f.toml", ConfigError)
    return str(caught.value)


def test_validate_builds_nested_dataclasses_and_lists_become_tuples() -> None:
    data = {"kind": "x", "part": {"size": [3, 4]}, "parts": {"p": {"size": (1, 2), "names": ["n"]}}, "share": 1}
    whole = validate(Whole, data, "f.toml", ConfigError)
    part = Part(size=(1, 2), names=("n",))
    assert whole == Whole(kind="x", part=Part(size=(3, 4)), parts={"p": part}, share=1.0)
    assert isinstance(whole.share, float)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, "'kind' is missing"),
        ({"kind": "z"}, "'kind' must be 'x' or 'y', got 'z'"),
        ({"kind": "x", "share": 1.5}, "'share' must be less than or equal to 1, got 1.5"),
        ({"kind": "x", "share": True}, "'share' must be a number, got True"),
        ({"kind": "x", "share": float("nan")}, "'share' must be a finite number, got nan"),
        ({"kind": "x", "flag": 1}, "'flag' must be true or false, got 1"),
        ({"kind": "x", "flag": None}, "'flag' must be true or false, got None"),
        ({"kind": "x", "part": 3}, "'part' must be a mapping of keys to values, got 3"),
        ({"kind": "x", "part": {}}, "'part.size' is missing"),
        ({"kind": "x", "part": {"size": [0, 1]}}, "'part.size' must be [height, width] in pixels, got [0, 1]"),
        ({"kind": "x", "part": {"size": "ab"}}, "'part.size' must be [height, width] in pixels, got 'ab'"),
        ({"kind": "x", "part": {"size": [1, 1], "even": 3}}, "'part.even' must be even, got 3"),
        ({"kind": "x", "part": {"size": [1, 1], "even": 2.5}}, "'part.even' must be a whole number, got 2.5"),
        ({"kind": "x", "part": {"size": [1, 1], "names": []}}, "'part.names' must have at least 1 item, not 0, got []"),
        ({"kind": "x", "part": {"size": [1, 1], "names": ["a", 1]}}, "'part.names.1' must be a text, got 1"),
        ({"kind": "x", "parts": {"p": {"size": [1]}}}, "'parts.p.size' must be [height, width] in pixels, got [1]"),
        ({"kind": "x", "either": 3}, "'either' must be a name or a mapping of numbers, got 3"),
        (
            {"kind": "x", "share": date(2020, 1, 2)},
            "'share' must be a text, a number, a list or a mapping, got dat",
        ),
    ],
)
def test_validate_names_the_key_what_was_expected_and_what_came(data: dict[str, Any], fault: str) -> None:
    assert refused(data).startswith(f"f.toml has 1 fault(s): {fault}")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"kid": "x", "kind": "x"}, "unknown keys kid (did you mean kind?) (known: either, flag, kind, part,"),
        ({"kind": "x", "zz": 1, "aa": 2}, "unknown keys aa, zz (known: either, flag, kind, part,"),
        ({"kind": "x", "part": {"size": [1, 1], "sizes": 1}}, "unknown keys part.sizes (did you mean size?) (know"),
        ({"kind": "x", "parts": {"p": {"size": [1, 1], "q": 1}}}, "unknown keys parts.p.q (known: even, names, size)"),
    ],
)
def test_validate_groups_unknown_keys_with_the_known_ones(data: dict[str, Any], fault: str) -> None:
    assert refused(data).startswith(f"f.toml has 1 fault(s): {fault}")


def test_validate_lists_all_faults_of_all_levels_at_once() -> None:
    message = refused({"flag": "no", "share": -1, "part": {"even": 2.5, "size": [0, 0]}})
    assert message == (
        "f.toml has 5 fault(s): 'kind' is missing; 'part.size' must be [height, width] in pixels, got [0, 0]; "
        "'part.even' must be a whole number, got 2.5; 'share' must be greater than or equal to 0, got -1; "
        "'flag' must be true or false, got 'no'"
    )


def test_validate_refuses_keys_that_are_no_texts() -> None:
    assert refused({"kind": "x", 3: 1}) == "f.toml has 1 fault(s): key 3 must be a text, quote it"
    parts = {1: {"size": [1, 1]}}
    assert refused({"kind": "x", "parts": parts}).endswith("key 1 of 'parts' must be a text, quote it")


def test_validate_names_a_value_that_fits_no_choice_by_its_own_key() -> None:
    message = refused({"kind": "x", "plain": []})
    assert message.endswith("'plain' must be a text, got []; 'plain' must be a whole number, got []")
