import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmsr.data.features.store import OLDER, FeatureStore, StoredFeatures, encoder_fingerprint, file_digest

KEY = f"{'0' * 16}/{'ab' * 32}"


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_put_comes_back(tmp_path: Path):
    store = FeatureStore(tmp_path)
    maker = store.maker("encoder", {"layers": [0, 1]}, name="an encoder")
    key = store.key(maker, b"audio")
    assert store.get(key) is None
    states = torch.randn(7, 3, 4)
    put = store.put(key, {"states": states, "mask": torch.ones(7, dtype=torch.long)})
    kept = store.get(key)
    assert kept is not None and torch.equal(kept["states"], put["states"])
    assert kept["states"].dtype == torch.float16 and kept["mask"].dtype == torch.long
    torch.testing.assert_close(kept["states"].float(), states, atol=2e-3, rtol=1e-3)
    content = key.split("/")[1]
    file = tmp_path / maker / content[:2] / f"{content}.safetensors"
    assert (store.hits, store.misses) == (1, 1)
    size = file.stat().st_size
    used = pytest.approx(time.time(), abs=60)
    assert store.makers() == [
        {"maker": maker, "name": "an encoder", "dtype": "float16", "entries": 1, "bytes": size, "used": used}
    ]
    assert sorted(files(tmp_path)) == sorted([file, tmp_path / maker / "maker.json"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_types_are_other_entries(tmp_path: Path, dtype: str):
    half, other = FeatureStore(tmp_path), FeatureStore(tmp_path, dtype=dtype)  # type: ignore[arg-type]
    assert half.maker("e", {}, name="e") != other.maker("e", {}, name="e")
    other.put(KEY, {"x": torch.tensor([1e5])})
    kept = other.get(KEY)
    assert kept is not None and kept["x"].dtype == getattr(torch, dtype)


def test_the_key_covers_all_it_was_made_from(tmp_path: Path):
    store = FeatureStore(tmp_path)
    made = [
        ("encoder", {"rate": 16000, "layers": 2}, b"audio"),
        ("encoder2", {"rate": 16000, "layers": 2}, b"audio"),
        ("encoder", {"rate": 8000, "layers": 2}, b"audio"),
        ("encoder", {"rate": 16000}, b"audio"),
        ("encoder", {"rate": 16000, "layers": 2}, b"audio2"),
    ]
    keys = [store.key(store.maker(encoder, how, name="x"), content) for encoder, how, content in made]
    assert len(set(keys)) == 5 and all(len(key) == 16 + 1 + 64 for key in keys)
    assert store.key(store.maker("encoder", {"layers": 2, "rate": 16000}, name="y"), b"audio") == keys[0]
    # Written down so that a release that changes the key, and so empties every store, is one that means to.
    assert keys[0].startswith("9b82b56b629b45ba/6ed8919ce20490a5")


def test_views_of_one_tensor_can_be_put(tmp_path: Path):
    store = FeatureStore(tmp_path, dtype="float32")
    stack = torch.randn(4, 5, 6)
    store.put(KEY, {"first": stack[0], "second": stack[1].T})
    kept = store.get(KEY)
    assert kept is not None
    torch.testing.assert_close(kept["second"], stack[1].T)


def test_values_out_of_range_are_refused(tmp_path: Path):
    store = FeatureStore(tmp_path)
    with pytest.raises(ValueError, match="states reaches 70000, beyond float16; accepted: dtype bfloat16 or"):
        store.put(KEY, {"states": torch.tensor([7e4])})
    assert not files(tmp_path)
    store.put(KEY, {"states": torch.tensor([float("inf")])})
    with pytest.raises(ValueError, match="dtype is 'int8'; accepted: float16, bfloat16, float32"):
        FeatureStore(tmp_path, dtype="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros"])
def test_a_broken_entry_is_a_miss_and_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture):
    store = FeatureStore(tmp_path)
    store.put(KEY, {"x": torch.arange(100.0)})
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole))}[damage])
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY) is None
    assert f"{path}: cannot be read and will be made again" in caplog.text
    store.put(KEY, {"x": torch.arange(100.0)})
    assert path.read_bytes() == whole and store.get(KEY) is not None


def content_of(number: int) -> str:
    return f"{'0' * 16}/{number:064x}"


def write_without_end(root: str, value: float, keys: int) -> None:
    store = FeatureStore(root, dtype="float32")
    while True:
        for number in range(keys):
            store.put(content_of(number), {"x": torch.full((500_000,), value + number)})


def test_writers_that_are_killed_leave_no_half_entry(tmp_path: Path):
    """Real processes, killed in the middle of writing, while this one reads."""
    context = multiprocessing.get_context("fork")
    store, reads, halves = FeatureStore(tmp_path, dtype="float32"), 0, 0
    for turn in range(4):
        writers = [
            context.Process(target=write_without_end, args=(str(tmp_path), value, 3)) for value in (1.0, 9.0)
        ]
        for writer in writers:
            writer.start()
        while sum(store.path(content_of(number)).exists() for number in range(3)) < 3:
            reads += sum(whole(store, number) for number in range(3))
        stop_while_writing(writers, tmp_path, halves)
        reads += sum(whole(store, number) for number in range(3))
        for writer in writers:
            writer.kill()
            writer.join()
        reads += sum(whole(store, number) for number in range(3))
        halves = count_halves(tmp_path)
        assert halves > turn, "each turn leaves at least one half behind"
    assert reads >= 2 * 3 * 4, "no half was read"
    assert len(list(store.entries())) == 3
    assert store.evict() == (0, 0)
    assert count_halves(tmp_path) == halves, "they may have a writer yet"
    for path in files(tmp_path):
        os.utime(path, (0, time.time() - 7200))
    store.evict()
    assert len(files(tmp_path)) == len(list(store.entries())) == 3


def count_halves(root: Path) -> int:
    return sum(path.name.startswith(".") for path in files(root))


def stop_while_writing(writers: list[BaseProcess], root: Path, before: int) -> None:
    """Return with all writers stopped, at least one of them between its first byte and its last."""
    while True:
        for writer in writers:
            send(writer, signal.SIGSTOP)
        if count_halves(root) > before:
            return
        for writer in writers:
            send(writer, signal.SIGCONT)
        time.sleep(0.001)


def send(writer: BaseProcess, number: int) -> None:
    assert writer.pid is not None and writer.is_alive()
    os.kill(writer.pid, number)
    if number == signal.SIGSTOP:
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED)  # it has stopped, not only been told to


def whole(store: FeatureStore, number: int) -> bool:
    kept = store.get(content_of(number))
    if kept is None:
        return False
    assert kept["x"].shape == (500_000,) and kept["x"].unique().tolist() in ([1.0 + number], [9.0 + number])
    return True


def write_often(root: str, keys: list[str], value: float) -> None:
    store = FeatureStore(root)
    for _ in range(20):
        for key in keys:
            store.put(key, {"x": torch.full((1000,), value)})
            kept = store.get(key)
            assert kept is not None and len(kept["x"].unique()) == 1


def test_processes_write_the_same_and_different_keys_at_once(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write_often, args=(str(tmp_path), [KEY, content_of(number)], float(number)))
        for number in range(1, 5)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    store = FeatureStore(tmp_path)
    kept = store.get(KEY)
    assert kept is not None and kept["x"].unique().item() in (1.0, 2.0, 3.0, 4.0)
    for number in range(1, 5):
        kept = store.get(content_of(number))
        assert kept is not None and kept["x"].unique().item() == number
    assert len(files(tmp_path)) == 5


def test_the_least_recently_used_go_first_and_a_reader_keeps_what_it_has(tmp_path: Path):
    store = FeatureStore(tmp_path, dtype="float32")
    now = time.time()
    for number in range(4):
        store.put(content_of(number), {"x": torch.full((1000,), float(number))})
        path = store.path(content_of(number))
        os.utime(path, (0, now - 1000 * (4 - number)))  # 0 is the oldest
    size = next(store.entries()).bytes
    held = store.get(content_of(0))  # now the youngest
    assert held is not None
    assert store.evict(older_than=2500) == (1, size)
    assert store.get(content_of(1)) is None
    assert store.evict(to_bytes=int(1.5 * size)) == (2, 2 * size)
    assert [entry.path for entry in store.entries()] == [store.path(content_of(0))]
    assert store.evict(to_bytes=0) == (1, size)
    assert held["x"].abs().sum() == 0 and store.get(content_of(0)) is None
    assert store.evict(to_bytes=0, older_than=1) == (0, 0)


def test_entries_of_older_releases_are_told_and_evicted(tmp_path: Path):
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / f"{'ab' * 32}.safetensors").write_bytes(bytes(10))
    store = FeatureStore(tmp_path)
    assert [(one["maker"], one["entries"], one["bytes"]) for one in store.makers()] == [(OLDER, 1, 10)]
    assert store.evict(to_bytes=0) == (1, 10)


def test_runs_are_written_down(tmp_path: Path):
    store = FeatureStore(tmp_path / "store")
    assert store.runs() == [] == store.makers()
    for number in range(7):
        store.get(KEY)
        store.record(f"run {number}")
    assert [(run["run"], run["hits"], run["misses"]) for run in store.runs()] == [
        (f"run {number}", 0, number + 1) for number in range(2, 7)
    ]


def test_stored_features_are_encoded_once_and_alike(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1600, 0.3), 16000)
    store = FeatureStore(tmp_path / "store")
    calls = []

    def stored(layers: int) -> StoredFeatures:
        processing = {"layers": layers}
        return StoredFeatures(
            store, encode, content=file_digest, encoder="e", processing=processing, name="e"
        )

    def encode(given: Sequence[str]) -> list[torch.Tensor]:
        heard = [soundfile.read(one)[0] for one in given]
        calls.extend(map(len, heard))
        return [torch.full((4, 2, 3), float(samples[0])) for samples in heard]

    features = stored(2)
    first = features(str(path))
    assert first.shape == (4, 2, 3) and torch.equal(features(str(path)), first) and calls == [1600]
    assert torch.equal(stored(2)(str(path)), first) and calls == [1600]
    stored(3)(str(path))
    soundfile.write(path, np.full(800, 0.3), 16000)
    features(str(path))
    assert calls == [1600, 1600, 800]
    store.evict(to_bytes=0)
    assert torch.equal(features(str(path)), first) and calls[3:] == [800]


def test_what_is_lacking_is_encoded_in_batches_that_are_allowed(tmp_path: Path):
    batches: list[list[str]] = []

    def encode(given: Sequence[str]) -> list[torch.Tensor]:
        batches.append(list(given))
        return [torch.full((len(one), 1, 1), float(ord(one[0]))) for one in given]

    def together(given: Sequence[str]) -> list[list[str]]:
        return [[one for one in given if len(one) == length] for length in (1, 2)]

    features = StoredFeatures(
        FeatureStore(tmp_path),
        encode,
        content=str.encode,
        encoder="e",
        processing={},
        name="e",
        batches=together,
    )
    features("a")
    assert list(features.fill(["a", "bb", "b", "b", "cc"])) == [1, 2, 4]
    assert batches == [["a"], ["b"], ["bb", "cc"]]
    assert features("cc").shape == (2, 1, 1) and features("cc")[0] == ord("c") and len(batches) == 3


def test_an_entry_stays_readable_while_it_is_replaced(tmp_path: Path):
    store = FeatureStore(tmp_path)
    store.put(KEY, {"x": torch.zeros(1000)})
    before = store.get(KEY)
    store.put(KEY, {"x": torch.ones(1000)})
    assert before is not None and before["x"].abs().sum() == 0


def test_the_fingerprint_is_of_names_types_shapes_and_weights():
    def module() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))

    first = encoder_fingerprint(module())
    assert len(first) == 64 and encoder_fingerprint(module()) == first
    assert encoder_fingerprint(module().to(torch.bfloat16)) != first
    assert encoder_fingerprint(torch.nn.Sequential(*reversed(list(module())))) != first
    changed = module()
    with torch.no_grad():
        changed[0].bias[2] += 1e-6  # type: ignore[index, union-attr]
    assert encoder_fingerprint(changed) != first
