"""Rank the photos of a folder by a text: python examples/encode_folder.py [FOLDER] [TEXT]."""

import argparse
from pathlib import Path

from fashion_retrieval import FashionModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("text", nargs="?", default="a photo of orange jumpsuit")
    arguments = parser.parse_args()

    photos = sorted(arguments.folder.glob("*.jpg"))
    model = FashionModel.from_pretrained()
    gallery = model.encode(images=photos)  # (N, D), L2-normalized
    query = model.encode(texts=[arguments.text])[0]  # (D,)

    cosines = gallery @ query
    for index in cosines.argsort()[::-1]:
        print(f"{cosines[index]:.3f}  {photos[index].name}")


if __name__ == "__main__":
    main()
