"""What this trainer promises in numbers, where no host is needed. tests/README.md lists all bars and who holds them."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from tandem_wan.training.checkpoints import CheckpointStore
from tandem_wan.training.data.dataset import ONE_SIZE, DatasetSettings
from tandem_wan.training.data.reader import load_dataset
from tandem_wan.training.loop import train
from tandem_wan.training.plans.plan import TimestepSettings
from tandem_wan.training.schedule import sigmas_at
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.timesteps import draw_sigmas
from tandem_wan.wan.video import probe, read_clip

PAIR = ("high_noise", "low_noise")
DISTRIBUTIONS = ("uniform", "sigmoid", "logit-normal")
SHIFTS = (1.0, 3.0, 5.0, 8.0, 12.0)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))


def whole_cdf(sigma: np.ndarray, kind: str, shift: float, mean: float, std: float) -> np.ndarray:
    """A shift by s moves the logit of sigma by log s: nothing else of the distribution changes."""
    with np.errstate(divide="ignore"):
        logit = np.log(sigma) - np.log1p(-sigma) - math.log(shift)
    if kind == "uniform":
        return 1 / (1 + np.exp(-logit))
    return normal_cdf((logit - (mean if kind == "logit-normal" else 0.0)) / std)


def kolmogorov_smirnov(drawn: np.ndarray, within, *distribution) -> float:
    """Largest distance between the draws' distribution and the one that is cut to the range."""
    drawn = np.sort(drawn)
    # A curve between 2,000 points of it: it is smooth, and erfc of every draw takes seconds.
    points = np.quantile(drawn, np.linspace(0, 1, 2001))
    first, last = whole_cdf(np.array(within, dtype=np.float64), *distribution)
    curve = (whole_cdf(points, *distribution) - first) / (last - first)
    expected = np.interp(drawn, points, curve)
    ranks = np.arange(len(drawn) + 1) / len(drawn)
    return max(np.abs(ranks[1:] - expected).max(), np.abs(ranks[:-1] - expected).max())


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_bar_c07_no_sigma_is_out_of_range_and_all_follow_the_cut_distribution(kind, shift):
    mean, std = 0.4, 0.8
    for boundary, role in ((0.9, "high_noise"), (0.875, "low_noise")):
        within, generator = sigma_range(role, boundary), torch.Generator().manual_seed(7)
        options = {"shift": shift, "distribution": kind, "mean": mean, "std": std}
        # A million over both experts; in float64, where 0.9 is not what it is in float32.
        many = draw_sigmas(within, 500_000, generator=generator, **options).double()
        least, most = many.min().item(), many.max().item()
        assert within.low <= least and (most <= 1.0 if within.high == 1.0 else most < boundary)
        # In hundreds: a million at once would lie as even as a ruler.
        few = [draw_sigmas(within, 100, generator=generator, **options) for _ in range(1000)]
        drawn = torch.cat(few).double().numpy()
        assert kolmogorov_smirnov(drawn, within, kind, shift, mean, std) <= 0.005
        assert kolmogorov_smirnov(drawn, within, kind, shift * 1.5, mean, std) > 0.01, "it can fail"


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_bar_c07_a_plan_draws_by_the_distribution_that_it_names(toys, kind):
    plan = toys.plan(timesteps=TimestepSettings(distribution=kind, mean=-0.5, std=1.2), shift=3.0)
    for role in PAIR:
        drawn = torch.cat([sigmas_at(plan, role, i, 4) for i in range(500)]).double().numpy()
        within = sigma_range(role, plan.boundary)
        assert kolmogorov_smirnov(drawn, within, kind, 3.0, -0.5, 1.2) <= 0.02


class StopAt(Turns):
    """Asks for the end before the piece of work number `at`, as somebody does who stops a run."""

    def __init__(self, at: int | None) -> None:
        self.at, self.pieces = at, 0

    def over(self) -> bool:
        asked = self.pieces == self.at
        self.pieces += 1
        return asked

    def wait(self) -> None:
        raise RunStopped


@pytest.mark.parametrize("order", ["interleaved", "joint", "sequential"])
def test_bar_c15_a_stop_at_any_micro_batch_ends_within_the_step_and_is_saved(toys, tmp_path, order):
    """No piece of work is done after it was asked for, and at most the step at hand is lost."""
    plan = toys.plan(steps=6, accumulate=3, swap_every=2, order=order)
    for at in range(18):
        log, store, steps = [], CheckpointStore(tmp_path / f"{order} {at}", "x"), []
        trainers = toys.trainers(plan, log=log)
        end = train(
            plan,
            trainers,
            save=lambda step, t, to=store: to.save(step, t, {}) if step else None,
            listen=steps.append,
            turns=StopAt(at),
        )
        assert end == "stopped"
        assert sum(entry[0] == "velocity" for entry in log) == at
        assert [event.step for event in steps] == list(range(1, at // 3 + 1))
        again = toys.trainers(plan)
        assert store.resume(again) == at // 3
        assert toys.same(toys.weights(again), toys.weights(trainers))


def test_bar_c17_of_24_fps_the_nearest_frame_stands_at_each_sixteenth_of_a_second(tmp_path):
    path = numbered_film(tmp_path / "clip.mp4", frames=122, fps=24)
    settings = DatasetSettings(folder=tmp_path, width=64, height=48, frames=81, fit=ONE_SIZE)
    dataset = load_dataset(settings)
    [clip] = dataset.clips
    video = read_clip(path, dataset.clip_size(clip), fps=dataset.clip_fps(clip), start=clip.start)
    high, low = (video[:, :, side].mean((1, 2, 3)) * 255 // 16 for side in (slice(2, 30), slice(34, 62)))  # fmt: skip
    indices = (high * 16 + low).int().tolist()
    assert len(indices) == 81 and indices[0] == 0
    assert max(abs(index - 1.5 * k) for k, index in enumerate(indices)) <= 0.5
    seen = probe(path, fps=16, max_frames=None)
    assert abs(seen.frames / 16 - 122 / 24) <= 1 / 16


def numbered_film(path, *, frames, fps):
    """Frame i carries i in base 16 as two grey fields."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.empty((48, 64, 3), np.uint8)
            picture[:, :32], picture[:, 32:] = number // 16 * 16 + 8, number % 16 * 16 + 8
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
