import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.manifest.check.audio import sample_issues
from mmsr.data.manifest.check.table import check_manifest

RATE = 16_000


def codes_of(path: Path, **options: Any) -> list[str]:
    return [fault.code for fault in check_manifest(path, **options).issues]


def test_audio_is_not_opened_when_not_asked_for(changed, clean):
    path = changed(clean, lambda place, row: row | {"audio": "gone.wav" if place in (0, 1) else row["audio"]})
    assert sorted(codes_of(path)) == ["audio-missing", "audio-missing", "label-conflict"]
    checked = check_manifest(path, audio=False)
    assert sorted(fault.code for fault in checked.issues) == ["audio-duplicate", "label-conflict"]
    assert np.isnan(checked.seconds).all()


def test_audio_in_an_archive_is_heard(changed, clean, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number in range(12):
            archive.write(tmp_path / f"clean{number}.wav", f"clean{number}.wav")
    path = changed(clean, lambda place, row: row | {"audio": f"zip://{row['audio']}::all.zip"})
    checked = check_manifest(path)
    assert checked.issues == () and checked.seconds == pytest.approx(2.0)
    path = changed(clean, lambda place, row: row | {"audio": f"zip://no{row['audio']}::all.zip"})
    assert set(codes_of(path)) == {"audio-missing"}


def test_a_duration_that_is_not_the_audio_s_length_is_an_error(changed, tone, clean):
    told_seconds = ["5", "2.09", "1.5", None]  # the audio lasts 2 s, of the last row 20 s

    def durations(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"duration": told_seconds[number] if number < 4 else 20.3 if number == 11 else 2}

    path = changed(clean, durations)
    soundfile.write(path.parent / "clean11.wav", tone(20.0, seed=11), RATE)
    checked = check_manifest(path, allow=["speech-too-slow"])
    accepted = "accepted: its length, to within 0.1 s or 2%"
    assert [str(fault) for fault in checked.issues] == [
        f"{path.name}, row 1, column duration: is 5 s, but 'clean0.wav' lasts 2.00 s; {accepted}",
        f"{path.name}, row 3, column duration: is 1.5 s, but 'clean2.wav' lasts 2.00 s; {accepted}",
    ]
    assert {fault.code for fault in checked.issues} == {"duration-wrong"} and checked.errors == 2
    assert codes_of(path, audio=False) == []


@pytest.mark.parametrize(
    ("samples", "codes"),
    [
        (np.zeros(RATE), ["audio-silent"]),
        (np.full(RATE, 0.5), ["audio-silent"]),
        (0.002 * np.sin(np.arange(RATE)), []),
        (np.sin(np.arange(RATE)), ["audio-clipped"]),
    ],
)
def test_silence_and_clipping_are_issues_of_samples(samples: np.ndarray, codes: list[str]):
    assert [code for code, _ in sample_issues(samples)] == codes
