"""The vocabulary: what ships, what a user may write, and what a fault is told as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fashion_retrieval.errors import InputError, TaxonomyError
from fashion_retrieval.taxonomy import KINDS, SHIPPED, Group, Taxonomy, Value, attribute_prompts, category_prompts

OWN_YAML = """
name: kimono shop
category:
  template: "a photo of {color} {category}"
  values:
    qipao: {phrases: [qipao, cheongsam], kind: dress}
    obi_belt: {kind: other}
    haori: [haori, kimono jacket]
attributes:
  era:
    template: ["a photo of {attribute} {category}", "{category} in {attribute} style"]
    applies_to: [dress, haori]
    values:
      taisho: Taisho period
      showa: [Showa period, fifties]
      unknown: {phrases: [undated], absent: true}
  ply:
    values: [two-ply, chainmail]
"""
OWN = Taxonomy(
    "kimono shop",
    Group(
        "category",
        ("a photo of {color} {category}",),
        (
            Value("qipao", ("qipao", "cheongsam"), "dress"),
            Value("obi_belt", ("obi belt",), "other"),
            Value("haori", ("haori", "kimono jacket")),
        ),
    ),
    (
        Group(
            "era",
            ("a photo of {attribute} {category}", "{category} in {attribute} style"),
            (
                Value("taisho", ("Taisho period",)),
                Value("showa", ("Showa period", "fifties")),
                Value("unknown", ("undated",), absent=True),
            ),
            frozenset({"dress", "haori"}),
        ),
        Group(
            "ply",
            ("a photo of {attribute} {category}",),
            (Value("two-ply", ("two-ply",)), Value("chainmail", ("chainmail",))),
        ),
    ),
)


def group_of(taxonomy: Taxonomy, name: str) -> Group:
    return next(group for group in taxonomy.attributes if group.name == name)


def value_of(group: Group, name: str) -> Value:
    return next(value for value in group.values if value.name == name)


def with_values(values: object) -> dict[str, Any]:
    return {"category": {"values": values}}


def with_group(**group: Any) -> dict[str, Any]:
    return {"category": {"values": ["shirt", "dress"]}, "attributes": {"cut": {"values": ["a", "b"]} | group}}


@pytest.mark.parametrize(
    ("name", "categories", "values"),
    [
        ("default", 67, {"texture": 11, "sleeve": 4, "length": 4, "neckline": 10, "fabric": 6, "fit": 3}),
        (
            "deepfashion",
            50,
            {"texture": 7, "sleeve_length": 3, "dress_length": 3, "neckline": 4, "fabric": 6, "fit": 3},
        ),
    ],
)
def test_shipped_taxonomies_have_these_values(name: str, categories: int, values: Mapping[str, int]) -> None:
    taxonomy = Taxonomy.load(name)
    assert taxonomy.name == name
    assert len(taxonomy.category.values) == categories
    assert {group.name: len(group.values) for group in taxonomy.attributes} == values
    assert taxonomy is Taxonomy.load(name)
    assert {value.kind for value in taxonomy.category.values} <= set(KINDS)


def test_deepfashion_taxonomy_has_26_attributes_and_two_absences() -> None:
    groups = Taxonomy.load("deepfashion").attributes
    assert sum(len(group.values) for group in groups) == 26
    absent = {(group.name, value.name) for group in groups for value in group.values if value.absent}
    assert absent == {("dress_length", "no_dress"), ("neckline", "no_neckline")}


def test_default_taxonomy_says_what_is_out_of_view() -> None:
    groups = Taxonomy.load("default").attributes
    absent = {(group.name, value.name) for group in groups for value in group.values if value.absent}
    assert absent == {
        ("sleeve", "sleeves_out_of_view"), ("length", "no_dress"), ("length", "hem_out_of_view"), ("neckline", "none"),
    }  # fmt: skip


def test_every_shipped_prompt_names_one_value() -> None:
    for name in SHIPPED:
        for group in Taxonomy.load(name).attributes:
            phrases = [phrase for value in group.values for phrase in value.phrases]
            assert len(phrases) == len(set(phrases)), (name, group.name)


def test_load_reads_every_form_of_a_users_taxonomy(tmp_path: Path) -> None:
    data = yaml.safe_load(OWN_YAML)
    assert Taxonomy.load(data) == OWN
    for file, text in (("own.yaml", OWN_YAML), ("own.yml", OWN_YAML), ("own.json", json.dumps(data))):
        (tmp_path / file).write_text(text, encoding="utf-8")
        assert Taxonomy.load(tmp_path / file) == OWN
        assert Taxonomy.load(str(tmp_path / file)) == OWN
    assert Taxonomy.load(OWN) is OWN


@pytest.mark.parametrize("source", [*SHIPPED, OWN])
def test_to_dict_loads_as_an_equal_taxonomy(source: str | Taxonomy) -> None:
    taxonomy = Taxonomy.load(source)
    assert Taxonomy.load(json.loads(json.dumps(taxonomy.to_dict()))) == taxonomy


def test_load_of_two_words_makes_a_taxonomy() -> None:
    taxonomy = Taxonomy.load({"category": {"values": ["space suit", "jeans"]}})
    assert taxonomy == Taxonomy(
        "custom",
        Group(
            "category",
            ("a photo of {color} {category}",),
            (Value("space suit", ("space suit",)), Value("jeans", ("jeans",))),
        ),
        (),
    )


def test_prompts_of_shipped_taxonomies_are_exact() -> None:
    default, deepfashion = Taxonomy.load("default"), Taxonomy.load("deepfashion")
    hat, tee = value_of(default.category, "hat"), value_of(deepfashion.category, "Tee")
    assert category_prompts(default.category, hat, "red") == ["a photo of red hat", "a photo of red baseball cap"]
    texture = group_of(deepfashion, "texture")
    assert attribute_prompts(texture, value_of(texture, "lattice"), tee) == ["a photo of checked t-shirt"]
    assert attribute_prompts(texture, value_of(texture, "graphic"), tee) == [
        "a photo of graphic print t-shirt",
        "a photo of patterned t-shirt",
        "a photo of polka dot t-shirt",
        "a photo of animal print t-shirt",
        "a photo of colour block t-shirt",
    ]
    sleeve = group_of(default, "sleeve")
    assert attribute_prompts(sleeve, sleeve.values[0], hat) == ["a photo of long sleeve hat"]


def test_prompts_go_phrase_by_phrase_and_name_the_category_by_its_first_phrase() -> None:
    era, qipao = OWN.attributes[0], OWN.category.values[0]
    assert attribute_prompts(era, value_of(era, "showa"), qipao) == [
        "a photo of Showa period qipao",
        "qipao in Showa period style",
        "a photo of fifties qipao",
        "qipao in fifties style",
    ]


@pytest.mark.parametrize(
    ("group", "applicable"),
    [
        ("texture", {"tee", "coat", "dress", "kurta", "skirt", "jeans", "handbag", "scarf"}),
        ("sleeve", {"tee", "coat", "dress", "kurta"}),
        ("length", {"dress", "kurta", "skirt"}),
        ("fit", {"tee", "coat", "dress", "kurta", "skirt", "jeans"}),
    ],
)
def test_a_group_applies_by_kind_or_by_category(group: str, applicable: set[str]) -> None:
    default = Taxonomy.load("default")
    names = ("tee", "coat", "dress", "kurta", "skirt", "jeans", "handbag", "scarf")
    asked = group_of(default, group)
    assert {name for name in names if asked.applies(value_of(default.category, name))} == applicable


def test_a_category_without_a_kind_has_only_the_groups_that_name_it() -> None:
    era, ply = OWN.attributes
    haori = value_of(OWN.category, "haori")
    assert haori.kind is None
    assert [era.applies(haori), ply.applies(haori)] == [True, True]
    assert not era.applies(Value("obi", ("obi",)))


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({}, "'category' is missing"),
    ({"category": ["shirt", "dress"]}, "'category' must be a mapping of keys to values, got ['shirt', 'dress']"),
    (
        with_values(["a", "b"]) | {"colors": [], "brand": 1},
        "unknown keys brand, colors (known: attributes, category, name)",
    ),
    (
        with_group(value=[1]),
        "unknown keys attributes.cut.value (did you mean values?) (known: applies_to, template, values)",
    ),
    (
        with_values({"a": {"phrase": "a"}, "b": "b"}),
        "unknown keys category.values.a.phrase (did you mean phrases?) (known: absent, kind, phrases)",
    ),
    ({"category": {}}, "'category.values' is missing"),
    (with_values([]), "'category.values' must be a list or a mapping of at least two values, got []"),
    (with_values(["only"]), "'category.values' must be a list or a mapping of at least two values, got ['only']"),
    (with_values("shirt"), "'category.values' must be a list or a mapping of at least two values, got 'shirt'"),
    (with_values({"a": 3, "b": "b"}), "'category.values.a' must be a text or a list of texts, got 3"),
    (
        with_values({"a": ["x", None], "b": "b"}),
        "'category.values.a' must be a text that is not empty, got ['x', None]",
    ),
    (with_values({"a": " ", "b": "b"}), "'category.values.a' must be a text that is not empty, got ' '"),
    (
        with_values({"a": {"phrases": []}, "b": "b"}),
        "'category.values.a.phrases' must be a text or a list of texts, got []",
    ),
    (
        with_values({"a": {"kind": "jacket"}, "b": "b"}),
        f"'category.values.a.kind' must be one of {', '.join(KINDS)}, got 'jacket'",
    ),
    (with_values({"a": {"absent": "yes"}, "b": "b"}), "'category.values.a.absent' must be true or false, got 'yes'"),
    (
        with_values(["a", "b"]) | {"attributes": ["cut"]},
        "'attributes' must be a mapping of keys to values, got ['cut']",
    ),
    (
        with_values(["a", "b"]) | {"attributes": {"cut": "wide"}},
        "'attributes.cut' must be a mapping of keys to values, got 'wide'",
    ),
    (with_group(template=7), "'attributes.cut.template' must be a text or a list of texts, got 7"),
    (with_group(template="{category}"), "'attributes.cut.template' must contain {attribute}, got '{category}'"),
    (
        with_group(template="{color} {attribute}"),
        "'attributes.cut.template' must use only {attribute} and {category}, got '{color} {attribute}'",
    ),
    (
        with_group(template="{attribute} {}"),
        "'attributes.cut.template' must use only {attribute} and {category}, got '{attribute} {}'",
    ),
    (
        with_group(template="{attribute"),
        "'attributes.cut.template' must use only {attribute} and {category}, got '{attribute'",
    ),
    (with_group(applies_to=3), "'attributes.cut.applies_to' must be a text or a list of texts, got 3"),
    (
        with_group(applies_to=["upper", "ape"]),
        "'attributes.cut.applies_to.1' must be a kind or a category, got 'ape'",
    ),
]


@pytest.mark.parametrize(("data", "fault"), FAULTS)
def test_load_names_each_fault_in_one_line(data: dict[str, Any], fault: str) -> None:
    with pytest.raises(TaxonomyError) as caught:
        Taxonomy.load(data)
    assert str(caught.value).startswith(f"taxonomy the given dict has 1 fault(s): {fault}")
    assert isinstance(caught.value, InputError)
    assert isinstance(caught.value, ValueError)


def test_load_names_the_file_and_all_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("category: {values: [one]}\nattributes: {cut: {values: {a: 1, b: [b]}, color: red}}\n")
    with pytest.raises(TaxonomyError) as caught:
        Taxonomy.load(file)
    assert str(caught.value) == (
        f"taxonomy {file} has 3 fault(s): unknown keys attributes.cut.color (known: applies_to, template, values); "
        "'category.values' must be a list or a mapping of at least two values, got ['one']; "
        "'attributes.cut.values.a' must be a text or a list of texts, got 1"
    )


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("a.json", b'{"category": }', "is not valid .json: Expecting value"),
        ("a.yaml", b"category: {values: [a, b}\n", "is not valid .yaml: while parsing a flow"),
        ("list.yaml", b"- a\n- b\n", "must be a mapping with 'category' and 'attributes', got list"),
        ("list.json", b'["a"]', "must be a mapping with 'category' and 'attributes', got list"),
        ("empty.yaml", b"", "must be a mapping with 'category' and 'attributes', got NoneType"),
        ("latin.yaml", b"name: d\xe9j\xe0\n", "can't be read ('utf-8' codec can't decode"),
    ],
)
def test_load_of_an_unreadable_file_names_the_reason(tmp_path: Path, file: str, content: bytes, fault: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(TaxonomyError) as caught:
        Taxonomy.load(tmp_path / file)
    assert fault in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["deepfashon", "missing.yaml", "."])
def test_load_of_an_unknown_name_lists_the_shipped_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaxonomyError) as caught:
        Taxonomy.load(str(tmp_path / name))
    message = str(caught.value)
    assert message.startswith(f"taxonomy {str(tmp_path / name)!r} can't be read (")
    assert message.endswith("); expected one of default, deepfashion, or a YAML or JSON file")


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(with_values(["red", "red", "blue"]), id="the same name twice in a list"),
        pytest.param(with_values([{"a": ["x", "y"]}, "b"]), id="a mapping inside a list becomes the name of a value"),
        pytest.param(with_group(template="{attribute.x}"), id="AttributeError from a template"),
        pytest.param(with_group(template="{attribute[x]}"), id="TypeError from a template"),
        pytest.param(with_group(template="{{attribute}} {category}"), id="an escaped placeholder never filled in"),
        pytest.param(3, id="TypeError from a number"),
        pytest.param("a\0b", id="ValueError from a path with a null byte"),
    ],
)
def test_load_refuses_unusual_faults(source: Any) -> None:
    with pytest.raises(TaxonomyError):
        Taxonomy.load(source)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param("a.yaml", "category: {values: {a: x, a: y, b: z}}", id="the same key twice in YAML"),
        pytest.param("a.json", '{"category": {"values": {"a": "x", "a": "y", "b": "z"}}}', id="and in JSON"),
        pytest.param("a.yaml", "category: {values: {a: 2020-13-45, b: z}}", id="ValueError from a date"),
    ],
)
def test_load_refuses_unusual_faults_of_files(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(TaxonomyError):
        Taxonomy.load(tmp_path / file)


def test_load_reads_the_placeholder_of_an_earlier_release_with_one_warning(tmp_path: Path) -> None:
    old = OWN_YAML.replace("{color}", "{colour}")
    (tmp_path / "old.yaml").write_text(old, encoding="utf-8")
    for source in (tmp_path / "old.yaml", yaml.safe_load(old)):
        with pytest.warns(DeprecationWarning, match=r"\{colour\} in a taxonomy's prompts is now \{color\}") as caught:
            assert Taxonomy.load(source) == OWN
        assert [warning.filename for warning in caught] == [__file__]
    assert "colour" not in json.dumps(Taxonomy.load(OWN).to_dict())


@pytest.mark.parametrize("key", [True, 3])
def test_load_refuses_a_name_that_yaml_reads_as_no_text(key: object) -> None:
    with pytest.raises(TaxonomyError, match=f"key {key} of 'category.values' must be a text, quote it"):
        Taxonomy.load(with_values({key: "x", "a": "a", "b": "b"}))
