"""Recognisers are loaded or refused, and write nothing for silence."""

import numpy as np
import pytest

from mmsr.records import SAMPLE_RATE
from mmsr.speech.recogniser import Transcriber


def test_timestamps_that_a_model_lacks_are_refused(ctc, tmp_path, save_moonshine):
    with pytest.raises(ValueError, match="no timestamps by segment; accepted: none, word"):
        Transcriber(ctc, timestamps="segment")
    with pytest.raises(ValueError, match="moonshine.*no timestamps by word; accepted: none"):
        Transcriber(save_moonshine(tmp_path / "m"), timestamps="word")
    assert Transcriber(tmp_path / "m", timestamps="auto").timestamps == "none"
    assert Transcriber(ctc, timestamps="auto").timestamps == "word"


def test_what_is_no_recogniser_is_refused(tmp_path, ctc):
    with pytest.raises(ValueError, match=r"no such folder; accepted: a folder or Hub id"):
        Transcriber(tmp_path / "none")
    with pytest.raises(
        ValueError, match=r"no such folder, and a Hub id has an owner, such as openai/whisper-x"
    ):
        Transcriber("whisper-x")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a bert, which writes no transcripts; accepted"):
        Transcriber(tmp_path / "bert")
    with pytest.raises(ValueError, match="batch_size is 0; accepted: 1 and more"):
        Transcriber(ctc, batch_size=0)


@pytest.mark.parametrize("kind", ["whisper", "ctc"])
def test_silence_has_no_words(kind, tmp_path, waves, built):
    transcriber = Transcriber(built(kind, tmp_path), timestamps="word", dtype="float32", device="cpu")
    speech, silence = *waves(0.5), np.full(SAMPLE_RATE, 5e-5, np.float32)
    before, nothing, after = transcriber.transcribe([speech, silence, speech])
    assert before == after and before.text
    assert nothing.text == "" and nothing.chunks == ()
