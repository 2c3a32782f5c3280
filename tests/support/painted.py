"""What a painter of pictures was given."""

from itertools import combinations

from fashion_retrieval.drawing import canvas


def record_painted(monkeypatch):
    """Every shape painted, as (shape, (left, top, right, bottom) in pixels of its picture, the picture's size)."""
    seen = []
    paint = canvas.Painter.paint

    def record(self, shapes, x, y):
        shapes = list(shapes)
        for shape in shapes:
            left, top = (x + shape.x) * self.scale, (y + shape.y) * self.scale
            if isinstance(shape, canvas.Text):
                box = _around(shape, left, top, self)
            else:
                box = (left, top, left + shape.width * self.scale, top + shape.height * self.scale)
            seen.append((shape, box, self.picture.size))
        paint(self, shapes, x, y)

    monkeypatch.setattr(canvas.Painter, "paint", record)
    return seen


def _around(text, x, y, painter):
    """The box of what is inked."""
    size = text.size * painter.scale
    runs = [(painter.metrics.fonts(2 * size)[font], run) for font, run in painter.metrics.runs(text.words)]
    x = 2 * x - {"l": 0, "m": 0.5, "r": 1}[text.anchor] * sum(font.getlength(run) for font, run in runs)
    boxes = []
    for font, run in runs:
        left, top, right, bottom = font.getbbox(run, anchor="ls")
        boxes.append((x + left, top, x + right, bottom))
        x += font.getlength(run)
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    foot = y + 0.36 * size
    return min(lefts) / 2, foot + min(tops) / 2, max(rights) / 2, foot + max(bottoms) / 2


def check_apart(painted, page):
    """Nothing is painted beyond its picture, and no two texts of the page overlap."""
    for shape, (left, top, right, bottom), (width, height) in painted:
        assert left > -1 and top > -1 and right < width + 1 and bottom < height + 1, shape  # noqa: PT018  # one thing: it lies on the page
    texts = [(shape.words, box) for shape, box, size in painted if size == page and isinstance(shape, canvas.Text)]
    for (one, a), (other, b) in combinations(texts, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 1 or b[3] <= a[1] + 1, (one, other)
    return [words for words, _ in texts]
