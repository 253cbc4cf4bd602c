import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsr.data.manifest.issues import ManifestError
from mmsr.data.manifest.manifest import load_manifest


def test_many_faults_are_counted(write: Callable[..., Path], tmp_path: Path):
    path = write(tmp_path / "m.csv", "audio\n" + "".join(f"{i}.wav\n" for i in range(50)))
    with pytest.raises(ManifestError) as error:
        load_manifest(path)
    lines = str(error.value).split("\n")
    assert len(lines) == 21
    assert lines[19].startswith("m.csv, row 21, column audio: '19.wav' does not exist")
    assert lines[20] == "m.csv: 30 more faults, 50 in all"
    assert len(error.value.issues) == 50 and error.value.issues[49].row == 51
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value) and again.issues == error.value.issues
