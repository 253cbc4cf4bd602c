import logging
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmsr.data.features import FeatureStore, StoredFeatures, encoder_fingerprint


def test_what_is_put_comes_back(tmp_path: Path):
    store = FeatureStore(tmp_path)
    key = store.key("encoder", {"layers": [0, 1]}, b"audio")
    assert store.get(key) is None
    states = torch.randn(7, 3, 4)
    store.put(key, {"states": states, "mask": torch.ones(7, dtype=torch.long)})
    kept = store.get(key)
    assert kept is not None
    assert kept["states"].dtype == torch.float16 and kept["mask"].dtype == torch.long
    torch.testing.assert_close(kept["states"].float(), states, atol=2e-3, rtol=1e-3)
    file = tmp_path / key[:2] / f"{key}.safetensors"
    assert store.stats() == {"entries": 1, "bytes": file.stat().st_size, "hits": 1, "misses": 1}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_types_are_other_entries(tmp_path: Path, dtype: str):
    half, other = FeatureStore(tmp_path), FeatureStore(tmp_path, dtype=dtype)  # type: ignore[arg-type]
    assert half.key("e", {}, b"") != other.key("e", {}, b"")
    other.put("ab" * 32, {"x": torch.tensor([1e5])})
    kept = other.get("ab" * 32)
    assert kept is not None and kept["x"].dtype == getattr(torch, dtype)


def test_the_key_covers_all_it_was_made_from(tmp_path: Path):
    store = FeatureStore(tmp_path)
    keys = [
        store.key("encoder", {"rate": 16000, "layers": 2}, b"audio"),
        store.key("encoder2", {"rate": 16000, "layers": 2}, b"audio"),
        store.key("encoder", {"rate": 8000, "layers": 2}, b"audio"),
        store.key("encoder", {"rate": 16000}, b"audio"),
        store.key("encoder", {"rate": 16000, "layers": 2}, b"audio2"),
    ]
    assert len(set(keys)) == 5 and all(len(key) == 64 for key in keys)
    assert store.key("encoder", {"layers": 2, "rate": 16000}, b"audio") == keys[0]
    # Written down so that a release that changes the key, and so empties every store, is one that means to.
    assert keys[0].startswith("4de933956dea60fe")


def test_views_of_one_tensor_can_be_put(tmp_path: Path):
    store = FeatureStore(tmp_path, dtype="float32")
    stack = torch.randn(4, 5, 6)
    store.put("cd" * 32, {"first": stack[0], "second": stack[1].T})
    kept = store.get("cd" * 32)
    assert kept is not None
    torch.testing.assert_close(kept["second"], stack[1].T)


def test_values_out_of_range_are_refused(tmp_path: Path):
    store = FeatureStore(tmp_path)
    with pytest.raises(ValueError, match="states reaches 70000, beyond float16; accepted: dtype bfloat16 or"):
        store.put("ef" * 32, {"states": torch.tensor([7e4])})
    assert store.stats()["entries"] == 0
    store.put("ef" * 32, {"states": torch.tensor([float("inf")])})
    with pytest.raises(ValueError, match="dtype is 'int8'; accepted: float16, bfloat16, float32"):
        FeatureStore(tmp_path, dtype="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros"])
def test_a_broken_entry_is_a_miss_and_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture):
    store = FeatureStore(tmp_path)
    key = store.key("e", {}, b"x")
    store.put(key, {"x": torch.arange(100.0)})
    path = tmp_path / key[:2] / f"{key}.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole))}[damage])
    with caplog.at_level(logging.WARNING):
        assert store.get(key) is None
    assert f"{path}: cannot be read and will be made again" in caplog.text
    store.put(key, {"x": torch.arange(100.0)})
    assert path.read_bytes() == whole and store.get(key) is not None


def test_a_writer_that_dies_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = FeatureStore(tmp_path)
    key = store.key("e", {}, b"x")

    def half_written(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", half_written)
    with pytest.raises(KeyboardInterrupt):
        store.put(key, {"x": torch.ones(1)})
    assert store.get(key) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / key[:2] / f"{key}.0.tmp").write_bytes(b"half")  # killed, so that nothing cleaned up
    assert store.get(key) is None and store.stats()["entries"] == 0


def write_often(root: str, key: str, value: float) -> None:
    store = FeatureStore(root)
    for _ in range(50):
        store.put(key, {"x": torch.full((1000,), value)})
        kept = store.get(key)
        assert kept is not None and len(kept["x"].unique()) == 1


def test_two_processes_may_write_one_key(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(str(tmp_path), "ab" * 32, i)) for i in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    kept = FeatureStore(tmp_path).get("ab" * 32)
    assert kept is not None and kept["x"].unique().item() in (1.0, 2.0)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_stored_features_are_encoded_once_and_alike(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1600, 0.3), 16000)
    store = FeatureStore(tmp_path / "store")
    calls = []

    def encode(samples: np.ndarray) -> torch.Tensor:
        calls.append(len(samples))
        return torch.full((4, 2, 3), float(samples[0]))

    features = StoredFeatures(store, encode, encoder="e", processing={"layers": 2})
    first = features(str(path))
    assert first.shape == (4, 2, 3) and torch.equal(features(str(path)), first) and calls == [1600]
    again = StoredFeatures(store, encode, encoder="e", processing={"layers": 2})
    assert torch.equal(again(str(path)), first) and calls == [1600]
    StoredFeatures(store, encode, encoder="e", processing={"layers": 3})(str(path))
    soundfile.write(path, np.full(800, 0.3), 16000)
    features(str(path))
    assert calls == [1600, 1600, 800]


def test_an_entry_stays_readable_while_it_is_replaced(tmp_path: Path):
    store = FeatureStore(tmp_path)
    store.put("ab" * 32, {"x": torch.zeros(1000)})
    before = store.get("ab" * 32)
    store.put("ab" * 32, {"x": torch.ones(1000)})
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
