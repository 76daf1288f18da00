"""What a person types as a folder, what a node shows, and videos that are trimmed from their end."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize

pytestmark = pytest.mark.comfy


@pytest.fixture
def dataset_folder(comfy, monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes.host.places import dataset_folder

    (tmp_path / "input").mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    return dataset_folder


@pytest.mark.parametrize("name", ["~nobody_of_this_name/x", "a\0b", "/tmp/a\0b", "~\0"])
def test_what_can_be_no_folder_is_refused_in_words(dataset_folder, name):
    with pytest.raises(UserError, match=r"cannot be the name of a folder.*my_clips"):
        dataset_folder(name)


def test_a_link_in_the_input_folder_may_lead_anywhere_but_a_name_may_not(dataset_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "input" / "my_clips").symlink_to(tmp_path / "elsewhere")
    assert dataset_folder("my_clips").samefile(tmp_path / "elsewhere")
    assert dataset_folder("my_clips/..").samefile(tmp_path / "input")
    for name in ("../elsewhere", "my_clips/../../elsewhere", "a/../.."):
        with pytest.raises(UserError, match="leaves the input folder"):
            dataset_folder(name)


def test_a_name_that_is_no_text_can_be_shown(comfy, monkeypatch):
    from tandem_wan.nodes.host import progress

    sent = []

    class Server:
        class instance:  # noqa: N801 - the host's name
            @staticmethod
            def send_progress_text(text, node_id):
                sent.append((text.encode(), node_id))

    monkeypatch.setattr(progress, "PromptServer", Server)
    progress.node_text("7", "bad\udcff.mp4")
    assert sent == [(b"bad?.mp4", "7")]


def test_a_title_that_is_not_utf8_hides_neither_a_film_nor_its_entries(comfy, tmp_path):
    from comfy_api.latest import InputImpl
    from tandem_wan.nodes.host.dataset_files import video_medium
    from tandem_wan.nodes.host.media_tags import media_entries

    path = film_with_latin_title(tmp_path / "a.mkv", tandem='{"pair": 1}')
    assert media_entries(path) == {"tandem": {"pair": 1}}
    video = InputImpl.VideoFromFile(io.BytesIO(path.read_bytes()))
    assert video_medium(video, None, tmp_path / "kept").path.suffix == ".mkv"


@pytest.mark.parametrize(
    ("start_s", "seconds", "expected"),
    [
        (-0.5, 0.0, (17, 8)),
        (-0.5, 0.25, (17, 4)),
        (-99.0, 0.0, (8, 17)),
        (0.5, 0.0, (16, 9)),
        (2.0, 0.0, None),
    ],
)
def test_a_negative_start_counts_from_the_end_as_in_the_hosts_videos(
    comfy, tmp_path, start_s, seconds, expected
):
    from tandem_wan.nodes.host.dataset_files import ClipVideo
    from tandem_wan.wan.video import View

    video = ClipVideo(tmp_path / "a.mp4", ClipSize(64, 48, 17), fps=16.0, start=8, view=View())
    part = video.as_trimmed(start_s, seconds)
    assert (part and (part.start, part.size.frames)) == expected


def film_with_latin_title(path: Path, **tags: str) -> Path:
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "QQQQ", **tags})
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"Caf\xe9"))
    return path
