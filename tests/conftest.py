"""For all tests: Python's collector looks less often through torch and its like, or it takes a tenth of their time."""

import gc
import os
import tempfile

gc.set_threshold(50_000, 20, 20)

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Before torch is imported: the workers share the cores, and so must their threads.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# Before huggingface_hub is imported: what a test finds out of this processor is not kept beyond the tests.
os.environ["HF_ASSETS_CACHE"] = tempfile.mkdtemp(prefix="fashion-retrieval-tests-")
