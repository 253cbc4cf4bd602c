import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import decode_to_end, map_ahead, read_each, seconds_of


def sound(path: Path, seconds: float = 1.0) -> str:
    samples = np.random.default_rng(0).normal(0, 0.1, round(16000 * seconds))
    soundfile.write(path, samples, 16000)
    return str(path)


def test_each_file_has_its_result_or_its_error_in_order(tmp_path: Path):
    (tmp_path / "text.wav").write_text("no sound")
    files = [sound(tmp_path / "a.wav"), str(tmp_path / "text.wav"), sound(tmp_path / "b.wav", 2.0)]
    told: list[tuple[str, int, int]] = []
    first, error, last = read_each(files, seconds_of, progress=lambda *step: told.append(step))
    assert (first, last) == (1.0, 2.0)
    assert isinstance(error, AudioError) and str(error).startswith(f"{files[1]}: holds no audio")
    assert told == [("checking audio", done, 3) for done in (1, 2, 3)]


def test_whatever_is_raised_for_a_file_is_its_error(tmp_path: Path):
    def read(reference: str) -> int:
        if reference == "deep":
            return read(reference)  # RecursionError
        if reference == "large":
            raise ValueError("array is too big;\n `arr.size * dtype.itemsize` is larger than the maximum")
        return 1

    deep, one, large = read_each(["deep", "one", "large"], read)
    assert one == 1
    assert isinstance(deep, AudioError) and "deep: cannot be decoded (RecursionError: " in str(deep)
    assert isinstance(large, AudioError) and str(large) == (
        "large: cannot be decoded (ValueError: array is too big; `arr.size * dtype.itemsize` is larger than"
        " the maximum); accepted: a whole audio file"
    )
    (zipped,) = read_each([f"zip://a.wav::{tmp_path}/none.zip"], Audio())
    assert isinstance(zipped, AudioError) and "none.zip" in str(zipped) and "accepted: " in str(zipped)


def test_results_wait_in_bounded_number_and_come_in_order():
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    barrier = threading.Barrier(2)  # broken where the first two are not computed at once

    def slow_first(number: int) -> int:
        if number < 2:
            barrier.wait(timeout=20)
        return -number

    results = map_ahead(slow_first, numbers(), ahead=4)
    assert taken == []
    found = [next(results) for _ in range(3)]
    assert found == [0, -1, -2] and len(taken) == 6
    assert found + list(results) == [-number for number in range(20)]


def test_an_error_comes_in_its_turn_and_ends_the_others():
    def divide(number: int) -> float:
        return 1 / number

    results = map_ahead(divide, [1, 2, 0, 4], ahead=8)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_damage_anywhere_is_found_by_decoding_to_the_end(tmp_path: Path):
    path = Path(sound(tmp_path / "a.flac", 20.0))
    decode_to_end(str(path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = os.urandom(2000)
    path.write_bytes(content)
    assert seconds_of(str(path)) == 20.0  # its header is whole
    with pytest.raises(AudioError, match=r"a\.flac: "):
        decode_to_end(str(path))


def test_a_file_without_samples_has_no_length(tmp_path: Path):
    with pytest.raises(AudioError, match=r"a\.wav: has length zero; accepted: at least one sample") as error:
        seconds_of(sound(tmp_path / "a.wav", 0.0))
    assert error.value.code == "audio-zero-length"
