"""The reader of DeepFashion's fine annotations, on drawn trees: labels, boxes, the traps of its copies, all faults."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval.errors import ConfigError, InputError
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.deepfashion_tree import KINDS, SIZE, SMALL, write_stubs, write_tree
from training.data.crops import read_crop
from training.data.deepfashion import COLORS, clip_box, prepared_samples, read_samples
from training.data.deepfashion_files import photo_id
from training.data.deepfashion_labels import (
    ATTRIBUTES,
    CATEGORIES,
    MERGED,
    PUBLISHED,
    inspect_annotations,
    positives,
    read_annotations,
)
from training.data.manifest import region_mask
from training.data.texts import Vocabulary, encode_samples
from training.engine.settings import read_settings
from training.train_raf_clip import CONFIGS, Settings, read_garments_of


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("deepfashion")
    return root, write_tree(root)


@pytest.fixture
def root(drawn, tmp_path):
    return shutil.copytree(drawn[0], tmp_path / "copy")


def edit(root, name, change):
    """Rewrite one annotation file; `change` gets its lines."""
    path = root / "Anno_fine" / name
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def replaced(line, text):
    return lambda lines: [*lines[: line - 1], text, *lines[line:]]


def faults(root):
    with pytest.raises(ConfigError) as caught:
        read_annotations(root)
    text = str(caught.value)
    assert "\n" not in text
    assert "python -m training.prepare check" in text
    return text


def test_labels_are_in_the_order_of_the_published_columns():
    assert ATTRIBUTES == {
        "texture": ("floral", "graphic", "striped", "embroidered", "pleated", "solid", "lattice"),
        "sleeve_length": ("long_sleeve", "short_sleeve", "sleeveless"),
        "dress_length": ("maxi_length", "mini_length", "no_dress"),
        "neckline": ("crew_neckline", "v_neckline", "square_neckline", "no_neckline"),
        "fabric": ("denim", "chiffon", "cotton", "leather", "faux", "knit"),
        "fit": ("tight", "loose", "conventional"),
    }
    assert len(CATEGORIES) == 50
    assert len(set(CATEGORIES) - set(MERGED)) == 46
    assert {CATEGORIES[i - 1] for i in (1, 20, 26, 41, 50)} == {"Anorak", "Turtleneck", "Jeans", "Dress", "Sundress"}


def test_what_was_drawn_is_read(drawn):
    root, trees = drawn
    for split, garments in trees.items():
        samples = read_samples(root, [split])
        assert len(samples) == SMALL[split]
        for sample, garment in zip(samples, garments, strict=True):
            assert sample.source == "deepfashion"
            assert sample.id == garment.path.removeprefix("img/").removesuffix(".jpg")
            assert sample.photo == root / garment.path
            assert (sample.category, sample.attributes) == (garment.category, garment.attributes)
            assert (sample.mask, sample.mask_value, sample.color) == (None, None, None)
            assert sample.box[:3] == garment.box[:3]
            assert sample.box[3] in (garment.box[3], SIZE[1])
    assert {garment.category for garments in trees.values() for garment in garments} == set(KINDS)
    train_and_val = read_samples(root, ["train", "val"])
    assert [s.id for s in train_and_val] == [s.id for split in ("train", "val") for s in read_samples(root, [split])]


def test_published_counts(tmp_path):
    write_stubs(tmp_path)
    annotations = read_annotations(tmp_path)
    assert {split: len(rows) for split, rows in annotations.splits.items()} == PUBLISHED
    assert PUBLISHED == {"train": 14_000, "val": 2_000, "test": 4_000}
    assert annotations.repeated == 0
    samples = read_samples(tmp_path, ["train", "val"])
    assert len(samples) == len({sample.id for sample in samples}) == 16_000


def test_prepared_samples_train_the_papers_prompts(root):
    rows = [row for split in ("train", "val") for row in read_annotations(root).splits[split]]
    lines = [{"kind": "colors"}, *({"id": row.id, "color": "cyan"} for row in rows)]
    (root / COLORS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=r"no mask \(run `python -m training.prepare masks"):
        prepared_samples(root, ["train", "val"])
    samples = prepared_samples(root, ["train", "val"], whole=True)
    assert {(s.box, s.mask) for s in samples} == {(None, None)}
    complete = read_settings(CONFIGS / "raf_clip_complete.toml", Settings)
    assert read_garments_of(root, complete) == (samples, [])  # what the recipe trains on
    vocabulary = Vocabulary(Taxonomy.load("deepfashion"))
    encoded = encode_samples(samples, vocabulary, held_out=[], balance=0.0)
    first = samples[0]
    noun = {"Tee": "t-shirt"}.get(first.category, first.category.lower())
    assert vocabulary.texts[encoded.category_text[0]] == f"a photo of cyan {noun}"
    texts = [vocabulary.texts[i] for i in encoded.attribute_texts[0, :6]]
    phrases = {g.name: {v.name: v.phrases[0] for v in g.values} for g in Taxonomy.load("deepfashion").attributes}
    assert texts == [f"a photo of {phrases[group][value]} {noun}" for group, value in first.attributes.items()]
    assert (encoded.attribute_texts[:, :6] >= 0).all()
    assert (encoded.attribute_texts[:, 6] == -1).all()


def test_the_recipes_of_the_paper_are_to_the_letter():
    regions, complete = (
        read_settings(CONFIGS / f"raf_clip_{name}.toml", Settings) for name in ("vit_b_32", "complete")
    )
    plan = regions.optimization
    garments = PUBLISHED["train"] + PUBLISHED["val"]
    assert (plan.epochs, plan.in_steps(garments / 256).steps, regions.sampling) == (150, 9375, "epoch")
    assert (plan.lr, plan.beta1, plan.beta2, plan.eps, plan.weight_decay) == (5e-7, 0.9, 0.98, 1e-6, 0.2)
    assert (regions.alpha, regions.targets, regions.taxonomy) == (0.5, "identity", "deepfashion")
    assert (regions.masked_garments, regions.whole_garments, regions.extra_garments) == (256, 0, 0)
    assert (regions.lock_text, regions.freeze, regions.vocabulary_weight, plan.amp, plan.ema) == (
        False,
        [],
        0,
        "bf16",
        0,
    )
    assert complete == replace(regions, output=complete.output, whole_garments=256, masked_garments=0)


def test_masks_and_colors_that_were_prepared_are_part_of_the_sample(root):
    rows = read_annotations(root).splits["val"]
    masks, colors = root / "masks", root / "colors.jsonl"
    for row in rows:
        mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
        mask[30:50, 40:60] = True
        path = masks / f"{row.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    colors.write_text('{"kind": "colors"}\n' + "".join(f'{{"id": "{r.id}", "color": "cyan"}}\n' for r in rows))
    samples = read_samples(root, ["val"], masks=masks, colors=colors)
    assert {s.color for s in samples} == {"cyan"}
    assert all(region_mask(s).sum() == 400 for s in samples)
    crop = np.asarray(read_crop(samples[0], masked=True))
    x1, y1, x2, y2 = samples[0].box
    assert crop.shape == (y2 - y1, x2 - x1, 3)
    assert (crop != 255).any(axis=2).sum() <= 400
    Image.new("1", (SIZE[0], 99)).save(masks / f"{rows[1].id}.png")
    with pytest.raises(ConfigError, match=rf"mask of another size than its photo \(remove it\) for {rows[1].id};"):
        read_samples(root, ["val"], masks=masks, colors=colors)
    samples[1].mask.write_bytes(samples[2].mask.read_bytes())
    (masks / f"{rows[0].id}.png").unlink()
    colors.write_text('{"kind": "colors"}\n')
    with pytest.raises(ConfigError, match=rf"no mask .* for {rows[0].id}; no color .* for {rows[0].id}, {rows[1].id}"):
        read_samples(root, ["val"], masks=masks, colors=colors)
    with pytest.raises(ConfigError, match="holds no colors"):
        read_samples(root, ["val"], colors=root / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("annotations", "photos"),
    [("anno_fine", ""), ("Anno/anno_fine", "Img"), ("ANNO_FINE", "img"), ("Anno_fine", "IMG")],
)
def test_folders_in_any_case(tmp_path, annotations, photos):
    trees = write_tree(tmp_path, {"train": 3, "val": 1, "test": 1}, annotations=annotations, photos=photos)
    samples = read_samples(tmp_path, ["train"])
    assert [s.photo for s in samples] == [tmp_path / photos / garment.path for garment in trees["train"]]


def test_the_other_release_names_photos_by_item_and_hyphen(root):
    assert photo_id("img_highres_subset/A-Line_Pleated-Front-img_00000037.jpg") == "A-Line_Pleated-Front/img_00000037"
    assert photo_id("img/A-Line_Pleated-Front/img_00000037.jpg") == "A-Line_Pleated-Front/img_00000037"
    before = read_samples(root, ["val"])
    edit(root, "val.txt", lambda lines: [f"img_highres_subset/{'-'.join(line.split('/')[1:])}" for line in lines])
    assert read_samples(root, ["val"]) == before
    flat = root / "img_highres_subset"
    flat.mkdir()
    for sample in before:
        shutil.move(sample.photo, flat / f"{sample.photo.parent.name}-{sample.photo.name}")
    after = read_samples(root, ["val"])
    assert [s.id for s in after] == [s.id for s in before]
    assert {s.photo.parent for s in after} == {flat}


def test_coarse_labels_count_their_ones_only():
    labels = [-1] * 26
    labels[5] = labels[7] = labels[22] = 1
    labels[8] = 0
    found = positives(labels)
    assert found["texture"] == ["solid"]
    assert found["sleeve_length"] == ["long_sleeve"]
    assert found["fabric"] == ["knit"]
    assert found["dress_length"] == found["neckline"] == found["fit"] == []


def test_groups_without_exactly_one_positive_are_left_out_and_counted(root):
    edit(root, "train_attr.txt", replaced(1, "1 1" + " 0" * 24 + " "))
    row = read_annotations(root).splits["train"][0]
    assert row.attributes == {}
    assert row.positives == {"texture": 2, **dict.fromkeys([*ATTRIBUTES][1:], 0)}
    assert read_annotations(root).disagreements == 1


def test_boxes_are_cut_at_the_edge():
    assert clip_box((-5, 10, 200, 300), (96, 128)) == (0, 10, 96, 128)
    assert clip_box((96, 10, 120, 20), (96, 128)) is None
    assert clip_box((-9, -9, 0, 5), (96, 128)) is None


def test_a_photo_that_comes_again_keeps_an_id_of_its_own(root):
    edit(root, "test.txt", lambda lines: [lines[0], *lines[:-1]])
    annotations = read_annotations(root)
    first, second = annotations.splits["test"][:2]
    assert (second.id, second.path) == (f"{first.id}+1", first.path)
    assert annotations.repeated == 1


def test_all_faults_of_the_text_files_in_one_line(root):
    edit(root, "train.txt", replaced(2, "../elsewhere/item/img_00000001.jpg"))
    edit(root, "train_attr.txt", replaced(3, "2" + " 0" * 25))
    edit(root, "train_cate.txt", replaced(4, "51"))
    edit(root, "train_bbox.txt", lambda lines: [*lines[:4], "30 40 30 90", "1 2 3", *lines[6:]])
    edit(root, "train_landmarks.txt", replaced(7, "1 2 3"))
    edit(root, "val_cate.txt", lambda lines: lines[:-1])
    (root / "Anno_fine" / "test_bbox.txt").unlink()
    edit(root, "list_attr_img.txt", replaced(1, "23"))
    edit(root, "list_category_cloth.txt", replaced(3, "Blazer 1"))
    text = faults(root)
    for part in (
        "photo outside the root or of no item in train.txt line 2",
        "not 26 labels of 0 or 1 in train_attr.txt line 3",
        "no category from 1 to 50 in train_cate.txt line 4",
        "box of no area in train_bbox.txt line 5",
        "not 4 integers in train_bbox.txt line 6",
        "not 16 integers in train_landmarks.txt line 7",
        "rows of val don't align: val.txt 4, val_attr.txt 4, val_cate.txt 3, val_bbox.txt 4",
        "missing annotation file test_bbox.txt",
        "list_attr_img.txt says '23' in line 1 and has rows: 22",
        "list_category_cloth.txt has 50 names, expected 50; 1 'blazer' is not 'anorak'",
    ):
        assert part in text


def test_many_places_are_counted(root):
    edit(root, "train_bbox.txt", lambda lines: ["5 5 5 5"] * len(lines))
    assert "box of no area in train_bbox.txt line 1, 2, 3, 4, 5, 6, 7, 8 and 4 more;" in faults(root)


def test_no_annotations_at_all(tmp_path):
    assert f"no folder Anno_fine in {tmp_path}" in faults(tmp_path)
    assert "no folder Anno_fine" in inspect_annotations(tmp_path / "nowhere").faults.lines()[0]


@pytest.mark.parametrize(
    "path", ["/img/item/img_1.jpg", "C:/img/a/b.jpg", "img/../../a.jpg", "a.jpg", "img/nohyphen.jpg"]
)
def test_paths_that_are_refused(path):
    assert photo_id(path) is None


def test_photos_that_cannot_be_used_are_named_together(root):
    first, second, third = [sample.photo for sample in read_samples(root, ["val"])[:3]]
    first.unlink()
    second.write_bytes(b"")
    edit(root, "val_bbox.txt", replaced(3, "200 10 240 60"))
    with pytest.raises(ConfigError) as caught:
        read_samples(root, ["val"])
    relative = [photo.relative_to(root).as_posix() for photo in (first, second, third)]
    assert f"missing or unreadable photo {relative[0]}, {relative[1]}; box outside its photo for {relative[2]}" in str(
        caught.value
    )


def test_splits_have_names(drawn):
    with pytest.raises(InputError, match="splits must be of train, val, test, got trainval"):
        read_samples(drawn[0], ["trainval"])


def test_an_empty_split_is_a_fault(root):
    for path in (root / "Anno_fine").glob("val*.txt"):
        path.write_text("\n")
    assert "no rows in val.txt" in faults(root)


def test_landmarks_may_be_missing(root):
    before = read_samples(root, ["train"])
    for path in (root / "Anno_fine").glob("*_landmarks.txt"):
        path.unlink()
    assert read_samples(root, ["train"]) == before
