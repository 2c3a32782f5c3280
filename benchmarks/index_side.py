"""One side of `benchmarks.index`: a process that adds photos with the package on its PYTHONPATH, now or of old."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from fashion_retrieval import FashionModel, Gallery


def main(place: str) -> None:
    """For each line of stdin, a JSON list of photos, add them to the gallery; answer with what it took."""
    model = FashionModel.from_pretrained("compact", device="cpu")
    kind: Any = Gallery
    try:
        gallery = kind.create(place, model, recognize=True)
    except TypeError:  # its name before release 0.2
        gallery = kind.create(place, model, recognise=True)
    for line in sys.stdin:
        photos = [Path(name) for name in json.loads(line)]
        start, worked = time.perf_counter(), time.process_time()
        report = gallery.add(photos)
        spent = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - worked}
        print(json.dumps(spent | {"added": report.added}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
