"""The cache gives back what was put there or nothing, keeps to its limit, and outlives a killed process."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.cache import files as cache_files
from tandem_wan.training.cache.files import PART, entry_key, entry_path
from tandem_wan.training.cache.latent_cache import GIB, EntryReader, LatentCache
from tandem_wan.training.cache.limit import IN_USE, STALE_S, entries, make_room, used_keys
from tandem_wan.wan.errors import UserError

FACTS = {
    "clip": "d1",
    "start": 0,
    "fps": 16.0,
    "width": 64,
    "height": 48,
    "crop": 0.5,
    "flip": False,
    "tokens": [["umt5", [[1, 1.0], [2, 1.0]]]],
}
KEY, OTHER = entry_key("latent", FACTS), entry_key("condition", FACTS)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def of_size(size_mib: float) -> torch.Tensor:
    return torch.ones(int(size_mib * (1 << 20)) // 4)


@pytest.fixture
def cache(tmp_path) -> LatentCache:
    return LatentCache(tmp_path / "cache")


@given(st.permutations(list(FACTS)))
def test_a_key_does_not_depend_on_the_order_of_its_facts(names):
    assert entry_key("latent", {name: FACTS[name] for name in names}) == KEY


NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=16)
FACT = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), NUMBER)


@given(
    ours=st.dictionaries(st.text(max_size=4), FACT, max_size=4),
    theirs=st.dictionaries(st.text(max_size=4), FACT, max_size=4),
)
def test_other_facts_or_another_kind_have_another_key(ours, theirs):
    def typed(facts):
        return {name: (type(value), repr(value)) for name, value in facts.items()}

    assert (entry_key("a", ours) == entry_key("a", theirs)) == (typed(ours) == typed(theirs))
    assert entry_key("a", ours) != entry_key("b", ours)


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_counts(name):
    changed = {
        "clip": "d2", "start": 1, "fps": 24.0, "width": 48, "height": 64, "crop": 0.0, "flip": True,
        "tokens": [["umt5", [[1, 1.0], [3, 1.0]]]],
    }  # fmt: skip
    assert entry_key("latent", {**FACTS, name: changed[name]}) != KEY


@pytest.mark.parametrize("shape", [(16, 3, 6, 8), (512, 24), (1, 1), (0, 5)])
@pytest.mark.parametrize("filled", [0, 7, 512])
@pytest.mark.parametrize("inference", [False, True])
def test_an_entry_comes_back_bit_for_bit_as_a_normal_tensor(cache, shape, filled, inference):
    tensor = noise(*shape)
    if len(shape) == 2:
        tensor[filled:] = 0
    with torch.inference_mode(inference):
        cache.write(KEY, tensor * 1, "a clip")
        found, read = cache.verified(KEY), cache.read(KEY)
    for ours in (found, read):
        assert torch.equal(ours, tensor) and ours.dtype == torch.float32
        assert not ours.is_inference()


def test_the_padding_of_a_text_takes_no_room(cache):
    context = torch.zeros(512, 4096)
    context[:20] = 1
    cache.write(KEY, context, "text")
    assert entry_path(cache.folder, KEY).stat().st_size < 21 * 4096 * 4
    assert torch.equal(cache.read(KEY), context)


def test_a_name_that_is_no_text_can_be_noted(cache):
    cache.write(KEY, noise(2, 3), "latent of \udcff.mp4")
    assert torch.equal(cache.verified(KEY), noise(2, 3))


def test_what_is_not_there_is_none(cache):
    assert cache.verified(KEY) is None


BROKEN = {
    "empty": lambda data: b"",
    "cut in the length": lambda data: data[:5],
    "cut in the header": lambda data: data[:40],
    "cut in the content": lambda data: data[: len(data) // 2 + 200],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "a changed value": lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
    "no safetensors": lambda data: b"a picture, perhaps" * 100,
    "a header without metadata": lambda data: (2).to_bytes(8, "little") + b"{}",
    "a header that is a list": lambda data: (2).to_bytes(8, "little") + b"[]",
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_entry_is_none_with_a_warning_and_can_be_made_again(cache, spoil, caplog):
    tensor = noise(16, 3, 6, 8)
    cache.write(KEY, tensor, "a clip")
    path = entry_path(cache.folder, KEY)
    path.write_bytes(spoil(path.read_bytes()))
    assert cache.verified(KEY) is None
    assert path.name in caplog.text and not path.exists()
    cache.write(KEY, tensor, "a clip")
    assert torch.equal(cache.verified(KEY), tensor)


def test_the_entry_of_something_else_is_none(cache):
    cache.write(OTHER, noise(2, 3), "another clip")
    entry_path(cache.folder, KEY).parent.mkdir(exist_ok=True)
    shutil.copyfile(entry_path(cache.folder, OTHER), entry_path(cache.folder, KEY))
    assert cache.verified(KEY) is None
    assert cache.verified(OTHER) is not None


@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), text=st.booleans())
def test_any_changed_bit_is_found_or_harmless(tmp_path_factory, place, bit, text):
    cache = LatentCache(tmp_path_factory.getbasetemp() / "bits")
    tensor = noise(9, 4) if text else noise(4, 3, 2, 2)
    if text:
        tensor[5:] = 0
    cache.write(KEY, tensor, "x")
    path = entry_path(cache.folder, KEY)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    found = cache.verified(KEY)
    assert found is None or (found.dtype == torch.float32 and torch.equal(found, tensor))


@pytest.mark.parametrize("spoil", [BROKEN["empty"], BROKEN["one byte short"], None])
def test_an_entry_that_goes_while_a_run_needs_it_is_an_error_that_says_what_to_do(cache, spoil):
    cache.write(KEY, noise(4, 3, 2, 2), "a clip")
    path = entry_path(cache.folder, KEY)
    if spoil is None:
        shutil.rmtree(cache.folder)
    else:
        path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match="Queue the run again"):
        cache.read(KEY)


def numbered(count: int) -> list[str]:
    return [entry_key("test", {"number": n}) for n in range(count)]


def aged(cache: LatentCache, keys: list[str]) -> None:
    """The first of them was used longest ago."""
    for age, key in enumerate(reversed(keys)):
        os.utime(entry_path(cache.folder, key), (0, time.time() - 3600 * (age + 1)))


def present(cache: LatentCache, keys: list[str]) -> list[bool]:
    return [entry_path(cache.folder, key).is_file() for key in keys]


def test_entries_used_longest_ago_leave_when_the_limit_is_reached(tmp_path):
    cache = LatentCache(tmp_path, limit_gib=5.2 / 1024)
    keys = numbered(6)
    for key in keys[:5]:
        cache.write(key, of_size(1), "test")
    aged(cache, keys[:5])
    assert cache.verified(keys[0]) is not None, "and with that used"
    cache.write(keys[5], of_size(1), "test")
    assert present(cache, keys) == [True, False, True, True, True, True]
    assert sum(entry.size for entry in entries(tmp_path)) <= 5.2 / 1024 * GIB


def test_what_a_run_uses_stays_beyond_the_limit(tmp_path):
    cache, keys = LatentCache(tmp_path, limit_gib=2.5 / 1024), numbered(6)
    for key in keys[:2]:
        cache.write(key, of_size(1), "of an earlier run")
    aged(cache, keys[:2])
    with cache.use([keys[0], *keys[2:]]):
        for key in keys[2:]:
            cache.write(key, of_size(1), "of this run")
        assert present(cache, keys) == [True, False, True, True, True, True]
    make_room(tmp_path, 0, 0)
    assert not any(present(cache, keys)), "the run is over"


def test_no_room_is_made_from_what_another_run_uses(tmp_path):
    ours, theirs = LatentCache(tmp_path, limit_gib=0), LatentCache(tmp_path)
    keys = numbered(3)
    with theirs.use(keys[:1]):
        for key in keys[:2]:
            theirs.write(key, of_size(0.01), "test")
        with ours.use(keys[2:]):
            ours.write(keys[2], of_size(0.01), "test")
        assert present(ours, keys) == [True, False, True]
    assert used_keys(tmp_path) == set() and list((tmp_path / IN_USE).iterdir()) == []


def full_disk(monkeypatch, times: int) -> None:
    """Half of a file is written, then there is no room; `times` often."""
    whole, left = cache_files._write_file, [times]

    def write(path, data):
        if left[0]:
            left[0] -= 1
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(cache_files, "_write_file", write)


def test_on_a_full_disk_what_no_run_uses_makes_place(cache, monkeypatch, caplog):
    keys = numbered(3)
    for key in keys[:2]:
        cache.write(key, noise(2, 3), "test")
    with cache.use(keys[1:]):
        full_disk(monkeypatch, 1)
        cache.write(keys[2], noise(2, 3), "test")
        assert present(cache, keys) == [False, True, True]
    assert "full" in caplog.text


def test_a_disk_that_stays_full_is_an_error_and_nothing_half_is_left(cache, monkeypatch):
    keys = numbered(2)
    with cache.use(keys):
        cache.write(keys[0], noise(2, 3), "test")
        full_disk(monkeypatch, 2)
        with pytest.raises(UserError, match=r"disk of .* is full.*Free some space") as caught:
            cache.write(keys[1], noise(2, 3), "test")
        assert caught.value.can_be
    assert present(cache, keys) == [True, False]
    assert list(cache.folder.rglob(f"*{PART}")) == []


@pytest.mark.parametrize("action", ["use", "write"])
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, action):
    (tmp_path / "cache").write_text("a file has its name")
    cache = LatentCache(tmp_path / "cache")
    with pytest.raises(UserError, match="cannot be written"):
        if action == "write":
            cache.write(KEY, noise(2, 3), "test")
        with cache.use([KEY]):
            pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_kill_in_the_middle_of_caching_loses_no_whole_entry(tmp_path):
    cache, keys = LatentCache(tmp_path), numbered(6)
    child = Path(__file__).with_name("caching_child.py")
    process = subprocess.Popen(
        [sys.executable, str(child), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "half\n"
        make_room(tmp_path, 0, 0)
        assert present(cache, keys) == [True] * 3 + [False] * 3, "a living process uses them"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        process.stdout.close()
    unfinished = list(tmp_path.rglob(f"*{PART}"))
    assert len(unfinished) == 1
    with cache.use(keys):
        assert unfinished[0].exists(), "it could be another process that writes it"
        found = [cache.verified(key) for key in keys]
        assert [f is not None for f in found] == [True] * 3 + [False] * 3
        for number, key in enumerate(keys[3:], 3):
            cache.write(key, torch.full((2, 3), float(number + 1)), "test")
        for number, key in enumerate(keys):
            assert torch.equal(cache.verified(key), torch.full((2, 3), float(number + 1)))
    os.utime(unfinished[0], (0, time.time() - STALE_S - 1))
    with cache.use(keys):
        assert not unfinished[0].exists()
    make_room(tmp_path, 0, 0)
    assert not any(present(cache, keys)), "the killed process holds nothing any more"


def test_the_last_entries_stay_in_memory_within_their_bytes(cache, monkeypatch):
    keys, tensors = numbered(4), [noise(4, 4, 4, 4, seed=n) for n in range(4)]
    for key, tensor in zip(keys, tensors, strict=True):
        cache.write(key, tensor, "test")
    reads = []
    monkeypatch.setattr(cache, "read", lambda key, read=cache.read: reads.append(key) or read(key))
    reader = EntryReader(cache, memory_bytes=2 * 1024)
    for number in (0, 1, 0, 2, 0, 1, 3):
        assert torch.equal(reader(keys[number]), tensors[number])
    assert reads == [keys[n] for n in (0, 1, 2, 1, 3)]
    assert reader._bytes == sum(t.nbytes for t in reader._kept.values()) <= 2 * 1024


def test_an_entry_larger_than_the_memory_is_read_all_the_same(cache):
    cache.write(KEY, noise(4, 4, 4, 4), "test")
    assert torch.equal(EntryReader(cache, memory_bytes=10)(KEY), noise(4, 4, 4, 4))


def test_the_folder_says_that_it_can_be_deleted(cache):
    with cache.use([KEY]):
        text = (cache.folder / "CACHEDIR.TAG").read_text(encoding="utf-8")
    assert text.startswith("Signature: 8a477f597d28d172789f06886806bc55") and "deleted" in text
