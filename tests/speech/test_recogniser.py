"""Recognisers at work: tiny random ones of each kind, a manifest copied with their words, a run killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import ManifestError, load_manifest
from mmsr.data.manifest.tables import read_table
from mmsr.speech.decoder import RATE
from mmsr.speech.recogniser import Transcriber
from mmsr.speech.transcribe import transcribe_manifest
from mmsr.speech.whisper import is_loop

pytest.importorskip("jiwer", reason="error rates need jiwer: pip install 'mmsr[asr]'")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def waves(*seconds: float, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 0.1, round(RATE * length)).astype(np.float32) for length in seconds]


def save_whisper(folder: Path) -> Path:
    """A random Whisper of 16 units that speaks English and Vietnamese."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|vi|>",
        "<|translate|>",
        "<|transcribe|>",
    ]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    ids = {token: place for place, token in enumerate([*letters, *special, *times])}
    tokenizer = WhisperTokenizer(vocab={token: ids[token] for token in letters}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens(times)
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    config = WhisperConfig(
        vocab_size=len(ids), d_model=16, num_mel_bins=16,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, init_std=1.0, max_target_positions=48,
        pad_token_id=ids["<|endoftext|>"], bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"], decoder_start_token_id=ids["<|startoftranscript|>"],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        pad_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"], no_timestamps_token_id=ids["<|notimestamps|>"],
        lang_to_id={"<|en|>": ids["<|en|>"], "<|vi|>": ids["<|vi|>"]},
        task_to_id={"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]},
        is_multilingual=True, max_length=48, max_initial_timestamp_index=50,
        suppress_tokens=[ids[token] for token in special[1:]], begin_suppress_tokens=[ids["<|endoftext|>"]],
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer).save_pretrained(folder)
    return folder


def save_moonshine(folder: Path) -> Path:
    torch.manual_seed(0)
    vocabulary = {token: place for place, token in enumerate(["<unk>", "<s>", "</s>", "▁", *LETTERS])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
    )  # fmt: skip
    config = MoonshineConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32,
        encoder_num_hidden_layers=1, decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        encoder_num_key_value_heads=2, decoder_num_key_value_heads=2, initializer_range=1.0,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    MoonshineForConditionalGeneration(config).save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(folder)
    return folder


def save_ctc(folder: Path, *, norm: str = "layer", adapters: tuple[str, ...] = ()) -> Path:
    """A random wav2vec2 with CTC; with adapters one as MMS, where a language has its own alphabet."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    vocabulary = {name: alphabet for name in adapters} if adapters else alphabet
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), target_lang=adapters[0] if adapters else None
    )
    config = Wav2Vec2Config(
        vocab_size=len(alphabet), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, conv_dim=(16, 16), conv_stride=(20, 16), conv_kernel=(20, 16),
        feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, initializer_range=1.0, pad_token_id=0,
        adapter_attn_dim=4 if adapters else None,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config)
    model.lm_head.weight.data.normal_(0, 1)
    model.save_pretrained(folder)
    for name in adapters:
        torch.manual_seed(len(name) + ord(name[0]))
        weights = {key: torch.randn_like(value) for key, value in model._get_adapters().items()}
        from safetensors.torch import save_file

        save_file(weights, folder / f"adapter.{name}.safetensors", metadata={"format": "pt"})
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    return save_ctc(tmp_path_factory.mktemp("ctc") / "model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A manifest of nine clips, one twice, with a column of which mmsr knows nothing."""
    root = tmp_path_factory.mktemp("data")
    (root / "audio").mkdir()
    lines = ["id,audio,text,note,language,speaker,split"]
    for place, wave in enumerate(waves(*np.linspace(0.3, 1.5, 8))):
        soundfile.write(root / "audio" / f"{place}.wav", wave, RATE)
        split = "test" if place % 2 else "train"
        lines.append(f'r{place},audio/{place}.wav,"Hello, no. {place}",007,en,s{place % 3},{split}')
    lines.append("again,audio/3.wav,hello,008,en,s1,test")
    (root / "m.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def built(kind: str, folder: Path) -> Path:
    if kind == "whisper":
        return save_whisper(folder / kind)
    if kind == "moonshine":
        return save_moonshine(folder / kind)
    return save_ctc(folder / kind, norm="group" if kind == "ctc-group" else "layer")


@pytest.mark.parametrize("kind", ["whisper", "moonshine", "ctc", "ctc-group"])
def test_a_row_s_text_does_not_depend_on_its_company(kind, tmp_path):
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
def test_chunks_lie_in_the_audio_and_hold_the_text(kind, timestamps, tmp_path):
    transcriber = Transcriber(built(kind, tmp_path), timestamps=timestamps, dtype="float32", device="cpu")
    for heard, seconds in zip(transcriber.transcribe(waves(1.3, 0.7)), (1.3, 0.7), strict=True):
        assert heard.chunks
        for chunk in heard.chunks:
            assert 0 <= chunk.start <= chunk.end <= seconds
        starts = [chunk.start for chunk in heard.chunks]
        assert starts == sorted(starts)
        together = "".join("".join(chunk.text.split()) for chunk in heard.chunks)
        assert together == "".join(heard.text.split())


def test_timestamps_that_a_model_lacks_are_refused(ctc, tmp_path):
    with pytest.raises(ValueError, match="no timestamps by segment; accepted: none, word"):
        Transcriber(ctc, timestamps="segment")
    with pytest.raises(ValueError, match="moonshine.*no timestamps by word; accepted: none"):
        Transcriber(save_moonshine(tmp_path / "m"), timestamps="word")


def test_whisper_is_told_the_language_or_finds_it(whisper):
    transcriber = Transcriber(whisper, dtype="float32", device="cpu")
    samples = waves(0.5, 0.5, 0.5)
    samples[1:] = [samples[0]] * 2
    told = transcriber.transcribe(samples, languages=["en", "vi-VN", None])
    assert [heard.language for heard in told[:2]] == ["en", "vi"]
    assert told[0].text != told[1].text
    assert told[2] == told[("en", "vi").index(told[2].language)]
    written = ("Vietnamese", "vie", "VI_vn", "Tiếng Việt")
    assert [transcriber.check_language(name) for name in written] == ["vi"] * 4
    with pytest.raises(ValueError, match="'de'; accepted: en, vi"):
        transcriber.transcribe(samples, languages=["en", "de", None])


def test_audio_beyond_the_window_is_heard_whole(whisper, ctc):
    for model, timestamps in ((whisper, "segment"), (ctc, "word")):
        transcriber = Transcriber(model, timestamps=timestamps, dtype="float32", device="cpu")
        short, long = transcriber.transcribe(waves(0.5, 33.0))
        assert long.chunks[-1].end > 30 > short.chunks[-1].end
        assert transcriber.transcribe(waves(0.5, 33.0))[1] == long  # sampled, yet the same each time


def test_an_adapter_is_chosen_by_language(tmp_path):
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


def test_what_is_no_recogniser_is_refused(tmp_path, ctc):
    with pytest.raises(ValueError, match=r"no such folder; accepted: a folder or Hub id"):
        Transcriber(tmp_path / "none")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a bert, which writes no transcripts; accepted"):
        Transcriber(tmp_path / "bert")
    with pytest.raises(ValueError, match="batch_size is 0; accepted: 1 and more"):
        Transcriber(ctc, batch_size=0)


@pytest.mark.parametrize("kind", ["whisper", "ctc"])
def test_silence_has_no_words(kind, tmp_path):
    transcriber = Transcriber(built(kind, tmp_path), timestamps="word", dtype="float32", device="cpu")
    speech, silence = *waves(0.5), np.full(RATE, 5e-5, np.float32)
    before, nothing, after = transcriber.transcribe([speech, silence, speech])
    assert before == after and before.text
    assert nothing.text == "" and nothing.chunks == ()


def test_a_file_that_is_no_journal_is_named(folder, ctc, tmp_path):
    (tmp_path / "a.csv.journal.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match=r"a.csv.journal.jsonl, byte 0: no line of a journal"):
        transcribe_manifest(folder / "m.csv", Transcriber(ctc), tmp_path / "a.csv")
    assert (tmp_path / "a.csv.journal.jsonl").read_text() == "mine\n"


def test_loops_are_told_from_words():
    assert is_loop("the door by " * 12)
    assert not is_loop("kids are talking by the door, and dogs are sitting by the same door")


# ---------------------------------------------------------------------- a manifest


def transcribe(*arguments: object) -> None:
    main(["transcribe", *map(str, arguments), "--dtype", "float32"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_the_copy_keeps_columns_rows_and_audio(folder, ctc, tmp_path, ending):
    out = tmp_path / "deep" / "er" / f"heard.{ending}"
    transcribe("--manifest", folder / "m.csv", "--asr", ctc, "--out", out)
    source, copy = read_table(folder / "m.csv"), read_table(out)
    assert copy.columns == [*source.columns, "asr_text"]
    kept = [column for column in source.columns if column != "audio"]
    assert [[row[c] for c in kept] for row in copy.rows] == [[row[c] for c in kept] for row in source.rows]
    rows = load_manifest(out)  # audio is where the copy says
    assert all(row["asr_text"] for row in rows)
    assert rows["audio"] == load_manifest(folder / "m.csv")["audio"]
    assert not os.path.isabs(copy.rows[0]["audio"])
    assert rows[3]["asr_text"] == rows[8]["asr_text"]


def test_error_rates_are_those_of_the_rows_with_a_transcript(folder, ctc, tmp_path, capsys):
    transcribe("--manifest", folder / "m.csv", "--asr", ctc, "--out", tmp_path / "a.csv", "--json")
    answer = capsys.readouterr()
    rates = json.loads(answer.out)
    assert rates["n"] == 9 and set(rates["by_language"]) == {"en"} and rates["words"] == 8 * 3 + 1
    assert "8 utterances transcribed, 1 known" in answer.err


def test_a_choice_of_rows_leaves_the_others_as_they_are(folder, ctc, tmp_path):
    source = tmp_path / "old.csv"
    table = (folder / "m.csv").read_text().replace("audio/", f"{folder}/audio/").splitlines()
    source.write_text("\n".join([table[0] + ",asr_text", *(line + ",old" for line in table[1:])]))
    model = ("--manifest", source, "--asr", ctc, "--out")
    transcribe(*model, tmp_path / "split.csv", "--split", "test")
    old = {row["id"] for row in load_manifest(tmp_path / "split.csv") if row["asr_text"] == "old"}
    assert old == {"r0", "r2", "r4", "r6"}
    transcribe(*model, tmp_path / "speakers.csv", "--speakers", "[s0,s2]")
    old = {row["id"] for row in load_manifest(tmp_path / "speakers.csv") if row["asr_text"] == "old"}
    assert old == {"r1", "r4", "r7", "again"}
    with pytest.raises(SystemExit):
        transcribe(*model, tmp_path / "no.csv", "--speakers", "[nobody]")
    assert not (tmp_path / "no.csv").exists()


def test_words_stand_beside_the_copy(folder, ctc, tmp_path):
    transcribe(
        "--manifest", folder / "m.csv", "--asr", ctc, "--out", tmp_path / "a.csv", "--timestamps", "word"
    )
    lines = [json.loads(line) for line in (tmp_path / "a.csv.words.jsonl").read_text().splitlines()]
    texts = load_manifest(tmp_path / "a.csv", check_audio=False)["asr_text"]
    assert [line["id"] for line in lines] == [f"r{place}" for place in range(8)] + ["again"]
    assert [" ".join(chunk["text"] for chunk in line["chunks"]) for line in lines] == texts
    assert lines[0]["timestamps"] == "word" and set(lines[0]["chunks"][0]) == {"text", "start", "end"}


def test_nothing_is_heard_twice_in_another_order_or_a_grown_manifest(folder, ctc, tmp_path):
    out, transcriber = tmp_path / "a.csv", Transcriber(ctc, dtype="float32")
    lines = (folder / "m.csv").read_text().replace("audio/", f"{folder}/audio/").splitlines()
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines[:6]))
    assert transcribe_manifest(manifest, transcriber, out).transcribed == 5
    manifest.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    grown = transcribe_manifest(manifest, transcriber, out)
    assert (grown.transcribed, grown.known) == (3, 6)
    again = transcribe_manifest(manifest, transcriber, out)
    assert again.transcribed == 0 and again.rows == grown.rows
    worded = Transcriber(ctc, timestamps="word", dtype="float32")  # another option: heard anew
    assert transcribe_manifest(manifest, worded, out).transcribed == 8


def test_a_killed_run_goes_on_and_hears_nothing_twice(folder, ctc, tmp_path):
    """The run is killed in its second batch, in the middle of a line of the journal."""
    out = tmp_path / "a.csv"
    code = """
import sys, time
from mmsr.speech.recogniser import Transcriber
from mmsr.files import Journal
from mmsr.cli.main import main
hear, kept = Transcriber.transcribe, []
def counted(self, samples, **options):
    print("heard", len(samples), flush=True)
    return hear(self, samples, **options)
Transcriber.transcribe = counted
add = Journal.add
def stop(self, *entries):
    add(self, *entries)
    kept.append(1)
    if len(kept) == 2 and sys.argv[1] == "stop":
        self._file.write(b'{"key": "torn')
        self._file.flush()
        print("now", flush=True)
        time.sleep(60)
Journal.add = stop
main(sys.argv[2:])
"""
    arguments = ["transcribe", "--manifest", folder / "m.csv", "--asr", ctc, "--out", out]
    arguments += ["--batch_size", "3", "--dtype", "float32"]
    command = [sys.executable, "-c", code]

    def start(mode: str) -> subprocess.Popen:
        flags = [*command, mode, *map(str, arguments)]
        return subprocess.Popen(flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start("stop")
    lines = []
    for line in killed.stdout:
        lines.append(line.strip())
        if line == "now\n":
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert lines == ["heard 3", "heard 3", "now"] and killed.returncode == -signal.SIGKILL
    assert not out.exists()
    second = start("go")
    answer, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert [line for line in answer.splitlines() if line.startswith("heard")] == ["heard 2"]
    answer, errors = start("go").communicate(timeout=60)
    assert "heard" not in answer and "0 utterances transcribed, 9 known" in errors
    whole = tmp_path / "whole.csv"
    transcribe("--manifest", folder / "m.csv", "--asr", ctc, "--out", whole)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.csv", "a.csv.journal.jsonl", "whole.csv", "whole.csv.journal.jsonl",
    ]  # fmt: skip


def test_an_interruption_ends_with_130_and_leaves_no_output(folder, ctc, tmp_path):
    code = """
import sys, time
from mmsr.speech.recogniser import Transcriber
from mmsr.cli.main import main
def slow(self, samples, **options):
    print("now", flush=True)
    time.sleep(60)
Transcriber.transcribe = slow
main(sys.argv[1:])
"""
    arguments = ["transcribe", "--manifest", folder / "m.csv", "--asr", ctc, "--out", tmp_path / "a.csv"]
    run = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout.readline() == "now\n"
    time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 130 and errors.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "a.csv").exists()


def test_faulty_audio_stops_a_run_before_it_hears_anything(folder, ctc, tmp_path, monkeypatch, capsys):
    for name, wave in zip(("good", "bad"), waves(0.5, 0.5), strict=True):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
    cut = (tmp_path / "bad.wav").read_bytes()
    (tmp_path / "bad.wav").write_bytes(cut[:20])
    manifest = tmp_path / "m.csv"
    manifest.write_text("audio,asr_text\ngood.wav,\nbad.wav,old\ngone.wav,old\n")
    arguments = ("--manifest", manifest, "--asr", ctc, "--out", tmp_path / "a.csv")
    manifest_error = pytest.raises(
        ManifestError, transcribe_manifest, manifest, Transcriber(ctc), tmp_path / "x.csv"
    )
    assert "m.csv, row 4, column audio" in str(manifest_error.value)
    manifest.write_text("audio,asr_text\ngood.wav,\nbad.wav,old\n")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(Transcriber, "transcribe", lambda *_, **__: pytest.fail("heard a faulty manifest"))
        transcribe(*arguments)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "m.csv, row 3, column audio" in line and "bad.wav" in line and "accepted" in line
    manifest.write_text("audio,asr_text\ngood.wav,\nbad.wav,old\ngone.wav,old\n")
    transcribe(*arguments, "--keep-going")
    said = capsys.readouterr().err
    assert "row 3" in said and "row 4" in said and "1 utterances transcribed" in said
    texts = [row["asr_text"] for row in read_table(tmp_path / "a.csv").rows]
    assert texts[0] and texts[1:] == ["", ""]


def test_bad_input_is_one_line(folder, whisper, tmp_path, capsys):
    manifest = folder / "m.csv"
    out = ("--asr", whisper, "--out", tmp_path / "a.csv")
    for arguments, parts in (
        (("--manifest", tmp_path / "no.csv", *out), ("no.csv", "no such file")),
        (("--manifest", manifest, *out, "--language", "de"), ("'de'", "accepted: en, vi")),
        (("--manifest", manifest, *out, "--split", "dev"), ("m.csv", "'dev'", "test, train")),
        (("--manifest", manifest, "--asr", whisper, "--out", tmp_path / "a.txt"), ("a.txt", ".jsonl")),
        (("--manifest", manifest, "--asr", whisper, "--out", manifest), ("itself", "another file")),
    ):
        with pytest.raises(SystemExit) as stopped:
            transcribe(*arguments)
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "columns not used" not in line]
        assert len(lines) == 1 and all(part in lines[0] for part in parts), lines


def test_a_language_that_the_model_lacks_names_the_row(whisper, folder, tmp_path):
    text = (folder / "m.csv").read_text().replace("audio/", f"{folder}/audio/").replace("008,en", "008,de")
    (tmp_path / "m.csv").write_text(text)
    transcriber = Transcriber(whisper, dtype="float32")
    with pytest.raises(ManifestError, match=r"m.csv, row 10, column language: .*'de'; accepted: en, vi"):
        transcribe_manifest(tmp_path / "m.csv", transcriber, tmp_path / "a.csv")
    done = transcribe_manifest(tmp_path / "m.csv", transcriber, tmp_path / "a.csv", language="detect")
    assert {row["language"] for row in done.rows} <= {"en", "vi"}


@pytest.mark.slow
def test_a_real_whisper_hears_five_languages_and_silence(shared_models, demo_corpus, tmp_path):
    rows = load_manifest(demo_corpus).to_list()
    chosen = [next(row for row in rows if row["language"] == code) for code in ("en", "de", "fr", "vi", "zh")]
    from mmsr.data.audio.decoding import Audio

    transcriber = Transcriber(shared_models / "whisper-base")
    hum = (0.2 * np.sin(0.05 * np.arange(2 * RATE))).astype(np.float32)
    heard = transcriber.transcribe(
        [*(Audio()(row["audio"]) for row in chosen), np.zeros(RATE, np.float32), *waves(2), hum],
        languages=[*(row["language"] for row in chosen), None, None, None],
    )
    assert [row.language for row in heard[:5]] == ["en", "de", "fr", "vi", "zh"]
    assert all(row.text for row in heard[:5])
    assert [row.text for row in heard[5:]] == ["", "", ""]  # silence, noise, a hum


@pytest.mark.slow
def test_a_real_whisper_hears_real_speech(shared_models, shared_data):
    from mmsr.data.audio.decoding import Audio
    from mmsr.evaluation.error_rates import word_error_rate

    rows = load_manifest(shared_data / "ravdess16k" / "manifest.csv").to_list()[:4]
    heard = Transcriber(shared_models / "whisper-base")([Audio()(row["audio"]) for row in rows])
    rates = word_error_rate([row["text"] for row in rows], heard, ["en"] * 4)
    assert rates["wer"] == 0
