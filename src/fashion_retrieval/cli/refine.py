"""`fashion-retrieval refine`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashion_retrieval._utils.one_line import EXPECTED, one_line
from fashion_retrieval.cli.gallery import GalleryModel, GalleryUri, TopK, Where
from fashion_retrieval.cli.options import Backend, Device, Dtype, MaxPixels, Revision
from fashion_retrieval.cli.output import check_board, print_matches, write_board
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.folder import PHOTOS

if TYPE_CHECKING:
    from fashion_retrieval import Match, Refinement

HELP = "Type a wish, or the number of a result to go on from it; why, undo, board FILE, photo FILE, help, quit."


def refine(
    gallery: GalleryUri,
    image: Annotated[Path | None, typer.Option(metavar="PHOTO", help="A photo to start from.")] = None,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="A photo of the gallery to start from.")] = None,
    where: Where = None,
    top_k: TopK = 10,
    max_pixels: MaxPixels = None,
    model: GalleryModel = None,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "auto",
) -> None:
    """Search in several turns: a wish, a picked result, the next wish. Reads lines from a terminal or a pipe."""
    from fashion_retrieval import Refinement

    if image is not None and id_ is not None:
        raise typer.BadParameter("--image and --id exclude each other")
    loading: dict[str, Any] = {"revision": revision, "device": device, "dtype": dtype, "backend": backend}
    turns = Refinement.open(gallery, model, max_pixels=max_pixels, **loading)
    with turns.gallery:
        reference = turns.gallery.get(id_) if id_ is not None else image
        session = _Session(turns, reference, top_k, where)
        typer.echo(f"{len(turns.gallery)} photos. {HELP}")
        session.run()
    if session.failed and not sys.stdin.isatty():
        raise typer.Exit(1)


class _Session:
    """Reads a line, does what it says, shows the results."""

    def __init__(self, turns: Refinement, reference: Match | Path | None, top_k: int, where: str | None) -> None:
        self.turns = turns
        self.first = reference
        self.picked: Match | Path | None = None
        self.top_k = top_k
        self.where = where
        self.failed = False

    def run(self) -> None:
        """Until "quit" or the end of the input; an error is one line and the loop goes on."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        while (line := _read()) is not None:
            try:
                self.obey(line)
            except EXPECTED as error:
                self.failed = True
                typer.echo(f"error: {one_line(error)}", err=True)

    def obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line:
            return
        if line.lower() in ("help", "?"):
            typer.echo(HELP)
        elif line.lower() == "undo":  # of what was picked since the last turn, or else of that turn
            if self.picked is None:
                self.turns.undo()
            self.picked = None
            if self.turns.history:
                self.show(self.turns.history[-1].matches)
            else:
                typer.echo("back at the beginning")
        elif line.lower() == "why":
            typer.echo(str(self.turns.explain()))
        elif word.lower() == "board" and (not rest or "." in rest):
            path = Path(rest.strip())
            check_board(path)
            write_board(path, self.turns)
            typer.echo(f"board: {path}")
        elif word.lower() == "photo" and Path(rest).suffix.lower() in PHOTOS:
            self.start(Path(rest.strip()), rest.strip())
        elif line.isdecimal():
            shown = self.turns.history[-1].matches if self.turns.history else ()
            if not shown:
                raise InputError("there is no result to pick from; type a wish first")
            if not 1 <= int(line) <= len(shown):
                raise InputError(f"there is no result {int(line)}; expected a number from 1 to {len(shown)}")
            self.start(shown[int(line) - 1], shown[int(line) - 1].id)
        else:
            reference = self.picked or (None if self.turns.history else self.first)
            matches = self.turns.ask(line, reference, top_k=self.top_k, where=self.where)
            self.picked = None
            self.show(matches)

    def start(self, reference: Match | Path, name: str) -> None:
        """Take a photo for the next wish."""
        self.picked = reference
        typer.echo(f"from {name}: what should change?")

    def show(self, matches: Sequence[Match]) -> None:
        from fashion_retrieval import Match

        turn = self.turns.history[-1]
        name = turn.reference.id if isinstance(turn.reference, Match) else turn.reference
        typer.echo(turn.text if name is None else f"{turn.text}, from {name!s}")
        if turn.understood != (turn.text or ""):
            typer.echo(f"understood: {turn.understood}")
        print_matches(matches)


def _read() -> str | None:
    """The next line, without spaces around it; None at "quit" and at the end."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    return None if line.lower() in ("quit", "exit") else line
