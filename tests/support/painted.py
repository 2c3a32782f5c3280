"""What a painter of pictures was given."""

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
                font = self.metrics.font(shape.size * self.scale)
                box = self.pen.textbbox((left, top), shape.words, font=font, anchor=shape.anchor)
            else:
                box = (left, top, left + shape.width * self.scale, top + shape.height * self.scale)
            seen.append((shape, box, self.picture.size))
        paint(self, shapes, x, y)

    monkeypatch.setattr(canvas.Painter, "paint", record)
    return seen
