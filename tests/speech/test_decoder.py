"""What all kinds of recognisers do with a batch, and the adapters of CTC models."""

import pytest

from mmsr.speech.recogniser import Transcriber


@pytest.mark.parametrize("kind", ["whisper", "moonshine", "ctc", "ctc-group"])
def test_a_row_s_text_does_not_depend_on_its_company(kind, tmp_path, waves, built):
    model = built(kind, tmp_path)
    samples = waves(1.3, 0.4, 0.02, 2.1)  # in no order, and one shorter than a front end's window
    together = Transcriber(model, batch_size=3, dtype="float32", device="cpu")(samples)
    single = Transcriber(model, batch_size=1, dtype="float32", device="cpu")
    assert together == [single([wave])[0] for wave in samples]
    assert len(set(together)) > 1 and all(together[:2])
    assert "<|" not in "".join(together)


@pytest.mark.parametrize(
    ("kind", "timestamps"), [("whisper", "word"), ("whisper", "segment"), ("ctc", "word")]
)
def test_chunks_lie_in_the_audio_and_hold_the_text(kind, timestamps, tmp_path, waves, built):
    transcriber = Transcriber(built(kind, tmp_path), timestamps=timestamps, dtype="float32", device="cpu")
    for heard, seconds in zip(transcriber.transcribe(waves(1.3, 0.7)), (1.3, 0.7), strict=True):
        assert heard.chunks
        for chunk in heard.chunks:
            assert 0 <= chunk.start <= chunk.end <= seconds
        starts = [chunk.start for chunk in heard.chunks]
        assert starts == sorted(starts)
        together = "".join("".join(chunk.text.split()) for chunk in heard.chunks)
        assert together == "".join(heard.text.split())


def test_audio_beyond_the_window_is_heard_whole(whisper, ctc, waves):
    for model, timestamps in ((whisper, "segment"), (ctc, "word")):
        transcriber = Transcriber(model, timestamps=timestamps, dtype="float32", device="cpu")
        short, long = transcriber.transcribe(waves(0.5, 33.0))
        assert long.chunks[-1].end > 30 > short.chunks[-1].end
        assert transcriber.transcribe(waves(0.5, 33.0))[1] == long  # sampled, yet the same each time


def test_an_adapter_is_chosen_by_language(tmp_path, waves, save_ctc):
    model = save_ctc(tmp_path / "mms", adapters=("eng", "vie", "cmn-script_simplified"))
    transcriber = Transcriber(model, dtype="float32", device="cpu")
    samples = waves(0.6) * 4
    heard = transcriber.transcribe(samples, languages=["vi", "en", "vie", "zh-CN"])
    assert [row.language for row in heard] == ["vie", "eng", "vie", "cmn-script_simplified"]
    assert heard[0] == heard[2] and len({row.text for row in heard}) == 3
    assert (
        transcriber.check_language("Chinese") == transcriber.check_language("zho_Hans") == heard[3].language
    )
    with pytest.raises(ValueError, match="'fr'; accepted: cmn-script_simplified, eng, vie"):
        transcriber.check_language("fr")
