"""The manifest of a folder of shards: what it holds, and that all faults of a file are named at once."""

import json
from dataclasses import asdict

import pytest

from fashion_retrieval.errors import ShardError
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, same_precision

PLAN = Manifest("org/name", "f" * 64, 16, "float32", 23, "d" * 64, 5, "parquet")


def test_manifest_written_and_read_is_the_same(tmp_path):
    place = Folder(str(tmp_path))
    PLAN.init_or_resume(place)
    assert Manifest.read(place) == PLAN
    content = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert (content["shards"], content["model_id"], PLAN.name(4)) == (5, "org/name", "shard-000004.parquet")
    PLAN.init_or_resume(place)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_manifest_with_faults_is_refused_with_all_of_them(tmp_path):
    content = asdict(PLAN) | {"photos": "23", "format": "csv", "speed": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ShardError) as caught:
        Manifest.read(Folder(str(tmp_path)))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/manifest.json has 3 fault(s): ")
    for part in ("'photos' must be a whole number, got '23'", "'format' must be 'parquet' or 'lance', got 'csv'"):
        assert part in message
    assert "unknown keys speed" in message
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"schema_version": 2}), encoding="utf-8")
    with pytest.raises(ShardError, match=r"is of a newer version \(2\); upgrade fashion-retrieval"):
        Manifest.read(Folder(str(tmp_path)))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("float32", "float32 by openvino fp32", True),
        ("float32 by onnx fp32", "float32 by openvino fp32", True),
        ("float32 by openvino int8", "float32 by openvino int8", True),
        ("float32 by openvino int8", "float32", False),
        ("bfloat16", "float32", False),
        ("bfloat16 by openvino fp32", "float32", False),
    ],
)
def test_same_precision_holds_for_equal_names_and_for_float32(one, other, same):
    assert same_precision(one, other) is same
