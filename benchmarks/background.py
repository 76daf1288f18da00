"""What a run in the background costs the others, and what they cost it: in the real host, over HTTP."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

from ..dev import runs
from ..dev.client import HostClient
from ..dev.footage import cut_clips, first_frame
from ..dev.server import HostServer, prepare_base
from ..dev.testing import Graph, number_of, training_graph
from ..wan.miniature.layouts import TransformerSize
from ..wan.miniature.random_family import write_family

ROOT = Path(__file__).absolute().parents[1]
PROBE = Path(__file__).with_name("loop_probe.py")
SIZE = TransformerSize(width=256, heads=4, layers=6, ffn_width=512)
PIXELS, FRAMES = 128, 17
SHORT, LONG, LONG_ACCUMULATE = "video effect", "general video", 4
"""Presets: 30 steps, and more than are needed, with so many micro-batches a step."""
PROMPTS, ROUNDS, QUIET_S = 60, 5, 15.0
_numbers = itertools.count()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = _base(Path(folder))
        with HostServer(base, nodes=("TandemTrainer",)) as server, server.client() as client:
            _train(client)  # loads the models and warms everything up
            _throughput(client, base)
            _latency_and_stalls(client, base)


def _throughput(client: HostClient, base: Path) -> None:
    ratios = []
    for _ in range(ROUNDS):
        paces = {}
        for mode in ("wait", "background"):
            paces[mode] = _seconds_per_step(base, _train(client, mode))
        ratios.append(paces["wait"] / paces["background"])
        print(
            f"s a step: wait {paces['wait']:.3f}, background {paces['background']:.3f}", flush=True
        )
    print(
        f"throughput in the background against wait: median {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), goal 0.98",
        flush=True,
    )


def _latency_and_stalls(client: HostClient, base: Path) -> None:
    quiet = {"alone": _stall_of_quiet(client)}
    _train(client)
    whole_run = _longest_stall(client)
    alone = _prompts(client)
    with_prompts = {"alone": _longest_stall(client)}
    name = f"bench_{next(_numbers)}"
    client.run(_training(name, "background", LONG))
    runs.wait_until(client, name, lambda job: job["step"] > 0)
    quiet["training"] = _stall_of_quiet(client)
    training = _prompts(client)
    with_prompts["training"] = _longest_stall(client)
    runs.ask(client, name, "stop")
    runs.wait_for_end(client, name)
    steps = runs.events(base, name, "StepDone")
    micro_batch = statistics.median(step["seconds"] for step in steps) / LONG_ACCUMULATE
    _say("a trivial prompt alone", alone)
    _say("a trivial prompt while training", training)
    added = _p95(training) - _p95(alone)
    print(
        f"micro-batch {micro_batch * 1e3:.0f} ms; p95 adds {added * 1e3:.0f} ms, "
        f"goal at most {(micro_batch + 0.05) * 1e3:.0f} ms"
    )
    print(
        f"longest stall of the event loop over a whole run, its start, checkpoints and plot: "
        f"{whole_run * 1e3:.0f} ms; goal 50 ms"
    )
    for when, stalls in (("without prompts", quiet), (f"over {PROMPTS} prompts", with_prompts)):
        print(
            f"longest stall of the event loop {when}: {stalls['training'] * 1e3:.0f} ms while "
            f"training, {stalls['alone'] * 1e3:.0f} ms alone; goal 50 ms"
        )


def _prompts(client: HostClient) -> list[float]:
    """Seconds from queueing a prompt to its end, at times that have nothing to do with the run's steps."""
    seconds = []
    for number in range(PROMPTS):
        time.sleep(1.0 + 0.037 * (number % 31))
        show = {
            "class_type": "PreviewAny",
            "inputs": {"source": f"{time.time()}"},
            "_meta": {"title": "show"},
        }
        began = time.perf_counter()
        client.run({"show": show})
        seconds.append(time.perf_counter() - began)
    return seconds


def _stall_of_quiet(client: HostClient) -> float:
    time.sleep(12.0)  # the host collects garbage once more, ten seconds after a prompt
    _longest_stall(client)
    time.sleep(QUIET_S)
    return _longest_stall(client)


def _longest_stall(client: HostClient) -> float:
    """Seconds for which the server's event loop answered nobody, since this was asked last."""
    return client.get("/benchmark/stall")["longest_s"]


def _say(what: str, seconds: list[float]) -> None:
    middle = statistics.median(seconds)
    print(f"{what}: median {middle * 1e3:.0f} ms, p95 {_p95(seconds) * 1e3:.0f} ms")


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.95 * len(seconds))]


def _seconds_per_step(base: Path, name: str) -> float:
    """Wall time from the end of the first step to the end of the last."""
    times = [step["time"] for step in runs.events(base, name, "StepDone")]
    return (times[-1] - times[0]) / (len(times) - 1)


def _train(client: HostClient, mode: str = "background") -> str:
    """A whole short run; its name."""
    name = f"bench_{next(_numbers)}"
    client.run(_training(name, mode, SHORT), timeout_s=600)
    # Asking more often would cost the run what is measured here.
    runs.wait_for_end(client, name, timeout_s=600, poll_s=2.0)
    return name


def _training(name: str, mode: str, preset: str) -> Graph:
    graph = training_graph(name, mode=mode)
    dataset = {"width": PIXELS, "height": PIXELS, "frames": FRAMES}
    graph[number_of(graph, "Clips to learn from")]["inputs"] |= dataset
    graph[number_of(graph, "Plan of the run")]["inputs"]["preset"] = preset
    return graph


def _base(folder: Path) -> Path:
    base = prepare_base(folder / "base", ROOT)
    write_family(base / "models", transformer=SIZE)
    (base / "custom_nodes" / "loop_probe.py").write_bytes(PROBE.read_bytes())
    clips = base / "input" / "clips"
    footage = Path(os.environ["TANDEM_FOOTAGE"])
    cut_clips(footage, clips, width=PIXELS, height=PIXELS, frames=FRAMES, count=3)
    first_frame(min(clips.glob("*.mp4")), base / "input" / "tandem_demo_first_frame.png")
    return base
