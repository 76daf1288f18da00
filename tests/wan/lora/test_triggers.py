"""Trigger words: from metadata, from the files beside a LoRA, several sets, each once."""

import json

import pytest
from tandem_wan.wan.lora.triggers import TriggerSet, find_triggers, unique_sets


def _words(path, metadata=None):
    return [found.words for found in find_triggers(path, metadata or {}).sets]


@pytest.fixture
def lora(tmp_path):
    path = tmp_path / "style.v2.safetensors"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"tandem": json.dumps({"trigger": "MERMAID"})}, ["MERMAID"]),
        ({"modelspec.trigger_phrase": "in anime style"}, ["in anime style"]),
        ({"trigger_words": '["one", "two, three"]'}, ["one", "two, three"]),
        ({"trigger": "[not json"}, ["[not json"]),
        ({"tandem": json.dumps({"trigger": ""}), "trigger": " "}, []),
        ({"ss_tag_frequency": '{"clips": {"woman": 20, "sea": 3}}'}, []),
        ({"tandem": "not json"}, []),
        ({}, []),
    ],
)
def test_metadata_gives_what_was_written_as_a_trigger_and_no_caption_words(lora, metadata, words):
    assert _words(lora, metadata) == words


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        (".metadata.json", {"civitai": {"trainedWords": ["one", "two"]}}, ["one", "two"]),
        (".civitai.info", {"trainedWords": ["neon, rain", "neon"]}, ["neon, rain", "neon"]),
        (".json", {"activation text": "retro film"}, ["retro film"]),
        (".json", {"civitai": None, "notes": "long story"}, []),
        (".json", ["no", "object"], []),
    ],
)
def test_sidecars_of_other_programs_are_read(lora, suffix, content, words):
    lora.with_suffix(suffix).write_text(json.dumps(content))
    assert _words(lora) == words


def test_each_line_of_a_text_file_is_a_set_but_comments_addresses_and_descriptions(lora):
    lines = ["# triggers", "one, two", "", "three", "https://civitai.com/models/1", "word " * 50]
    lora.with_suffix(".txt").write_text("\n".join(lines))
    assert _words(lora) == ["one, two", "three"]


def test_a_set_comes_once_whatever_its_case_and_order_and_keeps_its_first_spelling(lora):
    lora.with_suffix(".json").write_text(json.dumps({"trainedWords": ["Rain,neon", "solo"]}))
    lora.with_suffix(".txt").write_text("SOLO\nneon, rain\n")
    assert find_triggers(lora, {"trigger": "neon, Rain,"}).sets == (
        TriggerSet("neon, Rain", "metadata trigger"),
        TriggerSet("solo", "style.v2.json"),
    )


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b'{"trainedWords": '])
def test_a_sidecar_that_cannot_be_read_is_a_note_and_hides_nothing_else(lora, content):
    lora.with_suffix(".json").write_bytes(content)
    lora.with_suffix(".txt").write_text("word")
    found = find_triggers(lora, {})
    assert [words.words for words in found.sets] == ["word"]
    assert found.troubles[0].startswith("style.v2.json cannot be read for trigger words")


def test_a_file_that_is_too_long_is_not_read(lora, monkeypatch):
    monkeypatch.setattr("tandem_wan.wan.lora.triggers.MOST_BYTES", 3)
    lora.with_suffix(".txt").write_text("word")
    assert find_triggers(lora, {}).troubles == ("style.v2.txt is too long to hold trigger words",)


def test_nothing_is_a_trigger_of_nothing():
    assert unique_sets([TriggerSet(" , ", "x")]) == ()
