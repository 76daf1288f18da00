"""What importing the pack adds to ComfyUI's start: its own code and what it alone imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
RUNS = 7
# In a process of its own each time: the host first, then the pack as the host imports it.
CODE = """
import asyncio, importlib.util, os, sys, time
sys.path.insert(0, os.environ["TANDEM_COMFYUI"])
from comfy.cli_args import args
args.cpu = True
import comfy.sd, nodes, server, latent_preview, comfy_api.latest
import comfy_extras.nodes_wan, comfy_extras.nodes_train
began = time.perf_counter()
root = sys.argv[1]
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
spec.loader.exec_module(module)
async def load():
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    for node in await extension.get_node_list():
        node.GET_SCHEMA()
asyncio.run(load())
print(time.perf_counter() - began)
"""


def main() -> None:
    seconds = []
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(ROOT)], capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout.split()[-1]))
    print(
        f"import of the pack: median {statistics.median(seconds) * 1e3:.0f} ms "
        f"({min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f}) over {RUNS} fresh processes"
    )
