"""For all tests: Python's collector looks less often through torch and its like, or it takes a tenth of their time."""

import gc

gc.set_threshold(50_000, 20, 20)
