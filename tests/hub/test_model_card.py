"""The model card says what the configuration says, and is metadata the Hub can read."""

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from fashion_retrieval.config import Figure, ModelConfig, SegmenterConfig
from fashion_retrieval.hub.model_card import render_card, write_card

SEGMENTER = SegmenterConfig(
    architecture="tiny",
    image_size=(64, 48),
    classes=("upper", "skirt"),
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
)
CONFIG = ModelConfig(
    name="compact",
    segmenter=SEGMENTER,
    license="Apache-2.0",
    training_data=("Clothing Dataset, CC0", "Clothing Co-Parsing, Apache-2.0"),
    figures={
        "sleeve": Figure(value=0.91234),
        "category": Figure(
            value=0.75,
            interval=(0.7, 0.8),
            metric="accuracy",
            task="zero-shot-image-classification",
            data="ten drawn shirts",
        ),
    },
    sha256={"segmenter.safetensors": "ab" * 32, "open_clip_model.safetensors": "cd" * 32},
)


def test_metadata_is_what_the_hub_reads():
    data = ModelCard(render_card(replace(CONFIG, figures={}))).data
    assert data.to_dict() == {
        "language": "en",
        "library_name": "fashion-retrieval",
        "license": "apache-2.0",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["fashion", "clip", "open_clip", "image-segmentation"],
    }


@pytest.mark.parametrize(
    ("license", "expected"),
    [("MIT", ("mit", None)), ("unknown", ("unknown", None)), ("House-License-1", ("other", "house-license-1"))],
)
def test_licenses_the_hub_does_not_list_are_called_other(license, expected):
    data = ModelCard(render_card(replace(CONFIG, license=license))).data.to_dict()
    assert (data["license"], data.get("license_name")) == expected


def test_figures_that_say_what_they_are_stand_in_the_metadata():
    data = ModelCard(render_card(CONFIG)).data
    (result,) = data.eval_results
    assert data.model_name == "compact"
    assert (result.metric_name, result.metric_type, result.metric_value) == ("category", "accuracy", 0.75)
    assert (result.task_type, result.dataset_name) == ("zero-shot-image-classification", "ten drawn shirts")
    assert result.verified is None


def test_figures_of_other_data_keep_its_name_in_the_metadata():
    street = replace(CONFIG.figures["category"], value=0.5, data="two drawn streets")
    figures = CONFIG.figures | {"category on street": street}
    read = ModelCard(render_card(replace(CONFIG, figures=figures))).data.eval_results
    assert [(result.metric_value, result.dataset_name) for result in read] == [
        (0.75, "ten drawn shirts"),
        (0.5, "two drawn streets"),
    ]


def test_figures_and_digests_are_tables_in_alphabetical_order():
    lines = render_card(CONFIG).splitlines()
    start = lines.index("| figure | value | 95% interval | measured on |")
    assert lines[start + 2 : start + 4] == [
        "| category | 0.75 | 0.7 to 0.8 | ten drawn shirts |",
        "| sleeve | 0.9123 |  | not stated |",
    ]
    assert "the middle 95% of the figure" in render_card(CONFIG)
    start = lines.index("| file | sha256 |")
    digests = [f"| `open_clip_model.safetensors` | `{'cd' * 32}` |", f"| `segmenter.safetensors` | `{'ab' * 32}` |"]
    assert lines[start + 2 : start + 4] == digests


def test_data_vocabulary_and_regions_are_named():
    text = render_card(CONFIG)
    assert "- Clothing Dataset, CC0\n- Clothing Co-Parsing, Apache-2.0\n" in text
    assert "- Finds garments in a photo: upper, skirt." in text
    assert "taxonomy `default` (values per group): category (" in text


def test_the_examples_load_the_model_by_its_id():
    text = render_card(CONFIG)
    assert 'FashionModel.from_pretrained("compact")' in text
    assert 'open_clip.get_tokenizer("local-dir:FOLDER")' in text
    assert '`download_model("compact")` gives its path' in text
    text = render_card(CONFIG, model_id="house/model")
    assert 'FashionModel.from_pretrained("house/model")' in text
    assert 'open_clip.get_tokenizer("hf-hub:house/model")' in text
    assert "FOLDER" not in text


def test_a_written_card_takes_the_place_of_the_old_one(tmp_path):
    (tmp_path / "README.md").write_text("old")
    write_card(CONFIG, tmp_path, model_id="house/model")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text("utf-8") == render_card(CONFIG, model_id="house/model")


def test_a_bare_configuration_makes_an_honest_card():
    text = render_card(ModelConfig(name="bare"))
    assert "## Training data\n\nNot stated.\n" in text
    assert "## Measured\n\nNone.\n" in text
    assert "Finds garments" not in text
    assert "image-segmentation" not in text


def test_the_same_configuration_gives_the_same_text_whatever_its_order():
    turned = replace(
        CONFIG,
        figures=dict(reversed(CONFIG.figures.items())),
        sha256=dict(reversed(CONFIG.sha256.items())),
    )
    assert render_card(turned) == render_card(CONFIG)


def test_a_digest_of_the_card_itself_changes_nothing():
    assert render_card(replace(CONFIG, sha256=CONFIG.sha256 | {"README.md": "00" * 32})) == render_card(CONFIG)
