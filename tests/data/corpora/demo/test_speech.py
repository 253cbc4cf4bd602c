"""The voice of the demo corpus: what espeak-ng lacks is named."""

import os
from importlib.util import find_spec

import pytest

from mmsr.data.corpora.demo.corpus import MINIMUM, make_demo, speak

needs_espeak = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng_loader is not installed"
)


@needs_espeak
@pytest.mark.parametrize("voice", ["fr-fr", "zh", "en-gb", "de+nobody", "klingon+f3"])
def test_an_unknown_voice_is_named(voice, utterance):
    with pytest.raises(ValueError) as error:
        speak([utterance(voice="en-us"), utterance(voice=voice)])
    assert f"voice '{voice}' was not found" in str(error.value)
    accent = {"fr-fr": "fr-be", "zh": "cmn", "en-gb": "en-gb-x-rp", "de+nobody": "de", "klingon+f3": "cmn"}[
        voice
    ]
    assert f" {accent}," in str(error.value) and " m7" in str(error.value)


def test_without_espeak_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('absent')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(ValueError, match=r"pip install 'mmsr\[demo\]'"):
        make_demo(tmp_path / "corpus", utterances=MINIMUM, progress=False)
    assert [file.name for file in tmp_path.iterdir() if file.name != "__pycache__"] == ["espeakng_loader.py"]
