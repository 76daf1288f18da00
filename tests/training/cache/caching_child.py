"""A process that fills a cache, stops in the middle of the file of entry 3, and waits to be killed.

python caching_child.py ROOT
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

HERE = Path(__file__).absolute().parent


def main() -> None:
    spec = importlib.util.spec_from_file_location("of_tests", HERE.parents[1] / "conftest.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    import torch
    from tandem_wan.training.cache import files as cache_files
    from tandem_wan.training.cache import latent_cache

    cache = latent_cache.LatentCache(Path(sys.argv[1]))
    whole = cache_files._write_file
    keys = [cache_files.entry_key("test", {"number": n}) for n in range(6)]

    def write_half(path, data):
        path.write_bytes(data[: len(data) // 2])
        sys.stdout.write("half\n")
        sys.stdout.flush()
        threading.Event().wait()

    with cache.use(keys):
        for number, key in enumerate(keys):
            cache_files._write_file = write_half if number == 3 else whole
            cache.write(key, torch.full((2, 3), float(number + 1)), "test")


if __name__ == "__main__":
    main()
