"""The node that looks for faults: what it hands out, and what it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytestmark = pytest.mark.comfy


@pytest.fixture
def dataset(clips):
    from tandem_wan.training.data.dataset import DatasetSettings
    from tandem_wan.training.data.reader import load_dataset

    settings = DatasetSettings(folder=clips, width=64, height=64, frames=9)
    return load_dataset(settings)


@pytest.fixture
def node(monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes import doctor

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return doctor.TandemDatasetDoctor.PREPARE_CLASS_CLONE(None)


def test_it_hands_out_the_report_the_sheet_and_the_verdict(node, dataset):
    from tandem_wan.training.doctor.contact_sheet import contact_sheet
    from tandem_wan.training.doctor.examination import examine

    output = node.execute(dataset)
    report, sheet, verdict = output.result
    expected = examine(dataset)
    assert report == expected.text() and verdict == expected.verdict
    assert np.array_equal((sheet[0].numpy() * 255).round(), contact_sheet(expected))
    assert output.ui.as_dict()["images"], "the sheet is shown on the node"


def test_good_clips_are_good_and_the_preset_decides_how_many_there_must_be(node, dataset):
    # One film, read at eleven rates: only their number counts here.
    rates = (16 + number / 100 for number in range(11))
    many = replace(dataset, clips=tuple(replace(dataset.clips[0], fps=fps) for fps in rates))
    report, _, verdict = node.execute(many).result
    assert verdict == "good" and report.startswith("GOOD, 100 of 100")
    report, _, verdict = node.execute(many, "motion").result
    assert verdict == "warning" and "too few" in report and "30-50 clips" in report


def test_progress_and_the_findings_stand_under_the_node(node, dataset, monkeypatch):
    from tandem_wan.nodes import doctor
    from tandem_wan.nodes.host import progress

    said = []
    monkeypatch.setattr(progress, "node_text", lambda node_id, text: said.append(text))
    monkeypatch.setattr(doctor, "node_text", lambda node_id, text: said.append(text))
    report = node.execute(dataset).result[0]
    assert said[:3] == [f"looks at file {n} of 3, 0:00 left" for n in (1, 2, 3)]
    assert said[-1] == report


def test_the_presets_on_the_node_are_those_of_the_doctor(comfy):
    from tandem_wan.nodes.doctor import TandemDatasetDoctor
    from tandem_wan.training.doctor.guidance import PRESETS

    (preset,) = (i for i in TandemDatasetDoctor.define_schema().inputs if i.id == "preset")
    assert tuple(preset.options) == PRESETS and preset.default == "any"
