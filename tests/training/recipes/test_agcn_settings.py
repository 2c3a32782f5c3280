"""The settings of a composer's training: one TOML file per published number, and all faults at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fashion_retrieval.config import VARIANTS
from fashion_retrieval.errors import ConfigError
from tests.support.drawn_products import recipe, write_toml
from training import compare_composers
from training.comparison.runs import NAMES
from training.engine.settings import check_settings, read_settings
from training.recipes.agcn_settings import Settings

CONFIGS = Path(compare_composers.__file__).parent / "configs"


def test_table_5_is_five_files_that_differ_in_their_variant_alone() -> None:
    paper = read_settings(CONFIGS / "agcn_fashioniq.toml", Settings)
    for variant in VARIANTS:
        name = "agcn_fashioniq" if variant == "agcn" else f"agcn_fashioniq_{variant}"
        settings = read_settings(CONFIGS / f"{name}.toml", Settings)
        assert settings == replace(paper, variant=variant, output=f"runs/{name}")
        command = f"# python -m training.train_agcn training/configs/{name}.toml\n"
        assert (CONFIGS / f"{name}.toml").read_text(encoding="utf-8").startswith(command)


def test_the_comparison_on_fashioniq_trains_by_the_papers_recipe() -> None:
    paper = read_settings(CONFIGS / "agcn_fashioniq.toml", Settings)
    settings = read_settings(CONFIGS / "compare_fashioniq.toml", compare_composers.Settings)
    assert replace(settings.recipe, output=paper.output) == paper
    assert settings.seeds == [0, 1, 2]
    assert set(settings.composers) == set(NAMES)


def test_agcn_settings_name_all_their_faults(tmp_path: Path) -> None:
    base = recipe(tmp_path, tmp_path)
    check_settings(base, "base")
    check_settings(replace(base, source="fashioniq", derived=0, derived_share=0.0, held_out=0.0), "fashioniq")
    wrong = replace(
        base, source="fashioniq", batch_size=1, temperature=0.0, derived=0, held_out=1.0, validate_every=0,
        pseudo_labels="somewhere", variant="both", composer=replace(base.composer, heads=3, dropout=1.0),
    )  # fmt: skip
    path = write_toml(replace(wrong, negatives="none"), tmp_path / "wrong.toml")  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        read_settings(path, Settings)
    assert str(error.value).removeprefix(f"{path} has 10 fault(s): ").split("; '") == [
        "'composer.heads' must divide the width, 16, got 3",
        "composer.dropout' must be less than 1, got 1.0",
        "variant' must be one of sum, only_text, only_image, add, agcn, got 'both'",
        "batch_size' must be greater than or equal to 2, got 1",
        "temperature' must be greater than 0, got 0.0",
        "negatives' must be 'batch' or 'gallery', got 'none'",
        "derived_share' can't be with source = \"fashioniq\"; take it out",
        "pseudo_labels' can't be with source = \"fashioniq\"; take it out",
        "held_out' must be less than 1, got 1.0",
        "patience' needs 'validate_every', set it too",
    ]
    with pytest.raises(ConfigError, match="'validate_every' needs 'held_out' where source is \"pairs\""):
        check_settings(replace(base, held_out=0.0), "base")
    with pytest.raises(ConfigError, match="'derived_share' needs 'derived'"):
        check_settings(replace(base, derived=0), "base")
    for name in ("wrong_photo", "wrong_text"):
        with pytest.raises(ConfigError, match=f"'{name}' needs 'changes_share or edits_share', set it too"):
            check_settings(replace(base, **{name: 1.0}), "base")  # type: ignore[arg-type]
        check_settings(replace(base, edits_share=0.2, **{name: 1.0}), "base")  # type: ignore[arg-type]
    check_settings(replace(base, changes_share=0.2, edits_share=0.2), "base")
    told = "must leave a part of the batch to the pairs, got 1.1 with 'edits_share'; make them smaller"
    with pytest.raises(ConfigError, match=told):
        check_settings(replace(base, changes_share=0.3, edits_share=0.3), "base")
