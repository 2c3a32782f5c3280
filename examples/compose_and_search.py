"""Search a folder of photos in two turns, and save the board: python examples/compose_and_search.py [FOLDER]."""

import argparse
from pathlib import Path

from fashion_retrieval import FashionModel, Gallery, Refinement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--gallery", type=Path, default=Path("gallery"))
    parser.add_argument("--first", default="an orange jumpsuit")
    parser.add_argument("--change", default="black with a collar")
    parser.add_argument("--board", type=Path, default=Path("board.png"))
    arguments = parser.parse_args()

    photos = sorted(arguments.folder.glob("*.jpg"))
    model = FashionModel.from_pretrained()
    with Gallery.create(arguments.gallery, model, recognize=True, exist_ok=True) as gallery:
        report = gallery.add(photos, [photo.name for photo in photos])
        print(f"{report.added} added, {report.unchanged} unchanged")

        turns = Refinement(model, gallery)
        best = turns.ask(arguments.first)[0]
        print(f"{arguments.first}: {best.id} {best.score:.2f}")
        for match in turns.ask(arguments.change, best):
            print(f"{best.id}, but {arguments.change}: {match.id} {match.score:.2f}")
        turns.draw().save(arguments.board)
    print(f"board: {arguments.board}")


if __name__ == "__main__":
    main()
