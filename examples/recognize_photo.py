"""Recognize the garments of a photo, print them, and save the card: python examples/recognize_photo.py [PHOTO]."""

import argparse
from pathlib import Path

from fashion_retrieval import FashionModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=Path(__file__).with_name("grace_hopper.jpg"))
    parser.add_argument("--card", type=Path, default=Path("card.png"))
    arguments = parser.parse_args()

    model = FashionModel.from_pretrained()
    recognition = model.recognize(arguments.photo)
    for garment in recognition.garments:
        sleeve = garment.attributes.get("sleeve")
        print(f"{garment.title}, {garment.area:.0%} of the photo, {sleeve.label if sleeve else 'no word on sleeves'}")

    recognition.draw().save(arguments.card)
    print(f"card: {arguments.card}")


if __name__ == "__main__":
    main()
