"""A tiny model with a composer, its graphs in both runtimes, and images for it."""

from dataclasses import replace

import pytest
import torch

from fashion_retrieval import checkpoint
from tests.support.exported_models import BACKENDS, model_folder, write_graphs
from tests.support.tiny import drawn_photo


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def bundle(folder):
    return checkpoint.load(folder)


@pytest.fixture(scope="session")
def converted(folder, tmp_path_factory):
    """Backend -> folder with the model's graphs."""
    folders = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    for backend, out in folders.items():
        write_graphs(folder, backend, out)
    return folders


@pytest.fixture(scope="session")
def levels(bundle):
    return [replace(bundle.encoder.preprocessing, exact=True).resize(drawn_photo(seed=seed)) for seed in range(3)]


@pytest.fixture(scope="session")
def pixels(bundle, levels):
    return torch.stack([torch.from_numpy(bundle.encoder.preprocessing.normalize(each)) for each in levels])
