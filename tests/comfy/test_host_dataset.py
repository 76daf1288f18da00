"""The host's lists of videos, pictures and texts become a dataset, and a dataset becomes such lists."""

from __future__ import annotations

import io as files
import shutil
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from tandem_wan.dev.list_graphs import Blocked, ListGraphs, give, node

pytestmark = pytest.mark.comfy
SIZE = {"width": 64, "height": 64, "frames": 9, "fps": 16}


def test_the_hosts_video_folder_gives_the_same_clips_as_our_own_node(run, folders, clips):
    ours = run(node("TandemDataset", folder="films", **SIZE))[0]
    theirs = run(
        node("LoadVideoTextDataSetFromFolder", folder="films"),
        node("TandemDatasetFromHost", videos=[0, 0], texts=[0, 1], **SIZE),
    )[0]
    assert theirs.clips == ours.clips
    assert theirs.digest() == ours.digest()
    assert all(clip.path.parent == folders.input / "films" for clip in theirs.clips)
    assert not folders.written.exists()


def test_without_texts_the_captions_are_those_beside_the_files(run, folders):
    got = run(
        node("LoadVideoDataSetFromFolder", folder="films"),
        node("TandemDatasetFromHost", videos=[0, 0], **SIZE),
    )[0]
    for clip in got.clips:
        assert clip.caption == clip.path.with_suffix(".txt").read_text().strip() != ""


def test_a_file_that_the_host_lists_three_times_is_one_clip_with_three_repeats(run, folders):
    (folders.input / "films").rename(folders.input / "moved")
    (folders.input / "films").mkdir()
    (folders.input / "moved").rename(folders.input / "films" / "3_scenes")
    ours = run(node("TandemDataset", folder="films", **SIZE))[0]
    theirs, report = run(
        node("LoadVideoTextDataSetFromFolder", folder="films"),
        node("TandemDatasetFromHost", videos=[0, 0], texts=[0, 1], **SIZE),
    )
    assert [clip.repeats for clip in theirs.clips] == [3, 3, 3]
    assert theirs.digest() == ours.digest()
    assert "Listed several times" in report


def test_a_trimmed_video_is_used_in_that_part_of_its_own_file(run, folders):
    long_film(folders.input / "films" / "long.mp4", 40)
    got = run(
        node("LoadVideoDataSetFromFolder", folder="films"),
        node("VideoTemporalCrop", video=[0, 0], start_frame=12, length=20),
        node("TandemDatasetFromHost", videos=[1, 0], clip_mode="middle", **SIZE),
    )[0]
    (clip,) = [clip for clip in got.clips if clip.path.name == "long.mp4"]
    assert (clip.start, clip.frames) == (12 + 5, 9)  # 5 to either side of the middle 9 of 20
    assert not folders.written.exists()


def test_frames_of_the_graph_are_kept_exactly_and_once(folders, videos):
    from tandem_wan.nodes.host.dataset_files import video_medium
    from tandem_wan.wan.shapes import ClipSize
    from tandem_wan.wan.video import probe, read_clip

    frames = noise(9, 48, 80)
    first = video_medium(videos.of(frames, Fraction(24)), "a", folders.written).path
    written = first.stat().st_mtime_ns
    assert (read_clip(first, ClipSize(80, 48, 9), fps=24) * 255).round().equal(frames * 255)
    assert probe(first, fps=24, max_frames=None).fps == pytest.approx(24, abs=0.1)
    assert video_medium(videos.of(frames, Fraction(24)), "b", folders.written).path == first
    assert (
        video_medium(videos.of(frames - 0.3 / 255, Fraction(24)), "c", folders.written).path
        == first
    )
    assert first.stat().st_mtime_ns == written
    other = frames.clone()
    other[3, 5, 7, 1] = (other[3, 5, 7, 1] + 1 / 255) % 1
    for changed in (videos.of(other, Fraction(24)), videos.of(frames, Fraction(25))):
        assert video_medium(changed, "a", folders.written).path != first


def test_an_entry_of_one_frame_is_a_picture_and_of_several_a_clip_at_fps(run, folders):
    from tandem_wan.wan.video import read_clip

    picture, batch = noise(1, 64, 64), noise(13, 64, 64)
    got, report = run(
        give([picture, batch]), node("TandemDatasetFromHost", images=[0, 0], **SIZE), keep=2
    )
    still, moving = got.clips
    assert (still.path.suffix, still.frames) == (".png", 1)
    assert (moving.path.suffix, moving.frames) == (".mkv", 9)
    assert read_clip(still.path, got.clip_size(still), fps=16).equal(picture)
    shown = read_clip(moving.path, got.clip_size(moving), fps=16)
    assert (shown * 255).round().equal(batch[:9] * 255)
    assert {each.name for each in folders.written.iterdir()} == {
        still.path.name,
        moving.path.name,
    }
    assert "1 clip, 1 picture" in report


def test_what_is_written_is_no_output_to_choose_from(folders):
    from tandem_wan.nodes.host.dataset_files import picture_file
    from tandem_wan.nodes.host.media_files import media_names

    shutil.copyfile(picture_file(noise(1, 8, 8)[0], folders.written), folders.output / "own.png")
    assert [name for name in media_names() if "[output]" in name] == ["own.png [output]"]


def test_transparency_is_left_out(folders):
    from tandem_wan.nodes.host.dataset_files import images_medium

    picture = noise(1, 20, 30)
    seen = torch.cat([picture, torch.zeros(1, 20, 30, 1)], dim=-1)
    assert images_medium(seen, None, 16, folders.written) == images_medium(
        picture, None, 16, folders.written
    )


def test_a_video_in_memory_is_written_as_the_file_that_it_is(folders, clips, videos):
    from tandem_wan.nodes.host.dataset_files import video_medium

    content = min(clips.glob("*.mp4")).read_bytes()
    path = video_medium(videos.in_memory(content), None, folders.written).path
    assert path.suffix == ".mp4"
    assert path.read_bytes() == content


def test_what_is_no_picture_is_an_error_that_gives_its_shape(run, folders, videos):
    for inputs in (
        {"images": [0, 0], "given": torch.rand(1, 64, 64)},
        {"videos": [0, 0], "given": videos.of(torch.rand(0, 64, 64, 3), Fraction(16))},
    ):
        given = inputs.pop("given")
        with pytest.raises(RuntimeError, match=r"shape \((1|0), 64, 64.*Connect the output"):
            run(give([given]), node("TandemDatasetFromHost", **inputs, **SIZE))


@pytest.mark.parametrize("broken", ["damaged", "short"])
def test_what_cannot_be_used_is_named_and_skipped(run, folders, broken):
    path = folders.input / "films" / "zzz.mp4"
    if broken == "damaged":
        path.write_bytes(b"no video at all" * 40)
    else:
        long_film(path, 3)
    got, report = run(
        node("LoadVideoTextDataSetFromFolder", folder="films"),
        node("TandemDatasetFromHost", videos=[0, 0], texts=[0, 1], **SIZE),
    )
    assert len(got.clips) == 3
    assert [each.path.name for each in got.skipped] == ["zzz.mp4"]
    assert "Skipped zzz.mp4" in report


def test_nothing_that_can_be_used_is_an_error_with_the_reason(run, folders):
    with pytest.raises(
        RuntimeError, match=r"None of the 3 .*gives 9 frames at 16 fps.*lower frames"
    ):
        run(
            node("LoadVideoDataSetFromFolder", folder="films"),
            node("TandemDatasetFromHost", videos=[0, 0], **{**SIZE, "frames": 81}),
        )


def test_texts_that_do_not_match_are_an_error_with_both_numbers(run, folders):
    with pytest.raises(RuntimeError, match=r"2 texts for 3 videos and 0 images.*Connect the texts"):
        run(
            node("LoadVideoDataSetFromFolder", folder="films"),
            give(["one", "two"]),
            node("TandemDatasetFromHost", videos=[0, 0], texts=[1, 0], **SIZE),
        )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"width": 64}, r"Neither videos nor images.*Connect"),
        ({"videos": [0, 0], "frames": 80}, r"frames is 80\..*Use 77 or 81"),
        ({"videos": [0, 0], "width": 100}, r"width is 100 pixels.*Use 96 or 112"),
    ],
)
def test_what_can_be_known_is_refused_before_anything_runs(run, folders, inputs, message):
    with pytest.raises(ValueError, match=message):
        run(
            node("LoadVideoDataSetFromFolder", folder="films"),
            node("TandemDatasetFromHost", **inputs),
        )


def test_captions_are_written_beside_the_hosts_files_and_the_old_ones_kept(run, folders):
    before = {p: p.read_text() for p in (folders.input / "films").glob("*.txt")}
    run(
        node("LoadVideoTextDataSetFromFolder", folder="films"),
        node("TandemDatasetFromHost", videos=[0, 0], texts=[0, 1], trigger="MERMAID", **SIZE),
        node("TandemCaptionTemplate", dataset=[1, 0], templates="A {trigger}.", write="write"),
    )
    assert {p.read_text() for p in before} == {"A MERMAID.\n"}
    kept = [
        p for p in (folders.input / "films").rglob("*") if ".captions" in str(p) and p.is_file()
    ]
    assert set(before.values()) <= {p.read_text() for p in kept}


def test_a_chain_adds_the_hosts_pictures_to_a_folder_of_films(run, folders):
    got = run(
        node("TandemDataset", folder="films", trigger="MERMAID", **SIZE),
        node("LoadImageTextDataSetFromFolder", folder="stills"),
        node("TandemDatasetFromHost", images=[1, 0], texts=[1, 1], dataset=[0, 0], **SIZE),
    )[0]
    assert [clip.frames for clip in got.clips] == [9, 9, 9, 1, 1]
    assert got.trigger == "MERMAID"


def test_clips_go_out_as_training_sees_them_and_only_when_asked(run, folders, monkeypatch):
    from tandem_wan.nodes.host import dataset_files
    from tandem_wan.wan.video import read_clip

    read = []
    monkeypatch.setattr(
        dataset_files, "read_clip", lambda *a, **k: read.append(a[0].name) or read_clip(*a, **k)
    )
    flipped = node("TandemDataset", folder="films", flips=True, clip_mode="middle", **SIZE)
    dataset = run(flipped)[0]
    videos, texts = run(flipped, node("TandemDatasetToHost", dataset=[0, 0]), whole=True)[:2]
    assert read == []
    assert texts == [clip.caption for clip in dataset.clips]
    for video, clip in zip(videos, dataset.clips, strict=True):
        frames = video.get_components().images
        assert frames.equal(read_clip(clip.path, dataset.clip_size(clip), fps=16, start=clip.start))
        assert (video.get_frame_count(), video.get_dimensions()) == (9, (64, 64))
        assert video.get_frame_rate() == 16
    assert len(read) == 3


def test_a_dataset_that_goes_out_and_comes_back_is_the_same(run, folders):
    read = node("TandemDataset", folder="films", repeats=2.0, **SIZE)
    there = run(read)[0]
    back = run(
        read,
        node("TandemDatasetToHost", dataset=[0, 0]),
        node("TandemDatasetFromHost", videos=[1, 0], texts=[1, 1], **SIZE),
    )[0]
    assert back.digest() == there.digest()


def test_the_hosts_own_nodes_take_what_is_given(run, folders):
    shuffled = run(
        node("TandemDataset", folder="films", **SIZE),
        node("TandemDatasetToHost", dataset=[0, 0]),
        node("ShuffleVideoTextDataset", videos=[1, 0], texts=[1, 1], seed=3),
        node("VideoTemporalCrop", video=[2, 0], start_frame=2, length=5),
        node("GetVideoComponents", video=[3, 0]),
        whole=True,
        keep=1,
    )
    whole = run(
        node("TandemDataset", folder="films", **SIZE),
        node("TandemDatasetToHost", dataset=[0, 0]),
        node("GetVideoComponents", video=[1, 0]),
        whole=True,
        keep=1,
    )
    expected = {frames[2:7].sum().item() for frames in whole[0]}
    assert {frames.sum().item() for frames in shuffled[0]} == expected
    assert len(expected) == 3


def test_pictures_are_saved_by_the_hosts_node_with_their_texts(run, folders):
    run(
        node("TandemDataset", folder="stills", **SIZE),
        node("TandemDatasetToHost", dataset=[0, 0]),
        node(
            "SaveImageTextDataSetToFolder",
            images=[1, 2],
            texts=[1, 3],
            folder_name="saved",
            filename_prefix="still",
            mode="overwrite",
        ),
        keep=0,
    )
    saved = folders.output / "saved"
    assert sorted(p.name for p in saved.glob("*.png")) == ["still_00000.png", "still_00001.png"]
    assert Image.open(saved / "still_00000.png").size == (64, 64)
    assert (saved / "still_00001.txt").read_text() == "Still 1"


def test_the_hosts_training_dataset_is_made_of_clips_and_texts(run, folders, vae, clip):
    latents, conditioning = run(
        node("TandemDataset", folder="films", **SIZE),
        node("TandemDatasetToHost", dataset=[0, 0]),
        node("GetVideoComponents", video=[1, 0]),
        give([vae]),
        give([clip]),
        node("MakeTrainingDataset", images=[2, 0], vae=[3, 0], clip=[4, 0], texts=[1, 1]),
        whole=True,
    )
    assert [each["samples"].shape for each in latents] == [(1, 16, 3, 8, 8)] * 3
    assert len(conditioning) == 3


def test_an_output_without_entries_says_so_instead_of_failing(run, folders):
    with pytest.raises(Blocked, match=r"has no pictures.*Use videos"):
        run(
            node("TandemDataset", folder="films", **SIZE),
            node("TandemDatasetToHost", dataset=[0, 0]),
            node("ImageInvert", image=[1, 2]),
            keep=1,
        )


def test_what_lists_cannot_carry_is_said(run, folders):
    report = run(
        node("TandemDataset", folder="films", repeats=2.5, flips=True, regularisation=True, **SIZE),
        node("TandemDatasetToHost", dataset=[0, 0]),
        whole=True,
        keep=[4],
    )[0][0]
    assert "the repeats of 3 clips" in report
    assert "flips and further crops of 3 clips" in report
    assert "3 clips are regularisation" in report


# What the tests stand on.


class Folders:
    def __init__(self, root: Path) -> None:
        self.input, self.output = root / "input", root / "output"
        self.written = self.output / "tandem_cache" / "clips"


class Videos:
    """The host's videos."""

    def of(self, frames: torch.Tensor, rate: Fraction):
        from comfy_api.latest import InputImpl, Types

        return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=rate))

    def in_memory(self, content: bytes):
        from comfy_api.latest import InputImpl

        return InputImpl.VideoFromFile(files.BytesIO(content))


def noise(count: int, height: int, width: int) -> torch.Tensor:
    torch.manual_seed(count)
    return torch.randint(0, 256, (count, height, width, 3)) / 255


def long_film(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for pixels in (noise(frames, 64, 64) * 255).byte().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def videos(comfy):
    return Videos()


@pytest.fixture
def folders(comfy, clips, tmp_path, monkeypatch):
    import folder_paths

    folders = Folders(tmp_path)
    shutil.copytree(clips, folders.input / "films")
    (folders.input / "stills").mkdir()
    for number in range(2):
        pixels = (noise(1, 64, 64)[0] * (255 - number)).byte().numpy()
        Image.fromarray(pixels).save(folders.input / "stills" / f"{number}.png")
        (folders.input / "stills" / f"{number}.txt").write_text(f"Still {number}")
    folders.output.mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(folders.input))
    monkeypatch.setattr(folder_paths, "output_directory", str(folders.output))
    return folders


@pytest.fixture
def run(comfy, folders, monkeypatch):
    from comfy_extras import nodes_dataset, nodes_video
    from tandem_wan.nodes.caption_template import TandemCaptionTemplate
    from tandem_wan.nodes.dataset import TandemDataset
    from tandem_wan.nodes.host_dataset import TandemDatasetFromHost, TandemDatasetToHost

    ours = [TandemDataset, TandemDatasetFromHost, TandemDatasetToHost, TandemCaptionTemplate]
    return ListGraphs(monkeypatch, ours, [nodes_dataset, nodes_video]).run
