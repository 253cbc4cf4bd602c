"""The training of `base`: its settings, its stages in order, and what is made before training."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from transformers import WhisperConfig, WhisperModel

pytest.importorskip("lightning", reason="training needs lightning")

import base  # noqa: E402

from mmsr.cli.main import main  # noqa: E402
from mmsr.model.encoders.spectrogram import WhisperAudioEncoder  # noqa: E402

SETTINGS = yaml.safe_load((base.HERE / "base.yaml").read_text(encoding="utf-8"))
FITS = ("voice", "words_labelled", "words", "fusion", "fusion_unpaired")


@pytest.fixture
def run(tmp_path, corpora):
    return base.Run(yaml.safe_load(yaml.safe_dump(SETTINGS)), tmp_path / "run", corpora, 0.05)


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize("stage", FITS)
def test_what_a_stage_trains_with_is_what_fit_accepts(run, stage, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(base, "fit", given.extend)
    run.fit(stage, Path("rows.csv"), Path("start"))
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *given, "--print_config"])
    assert not exit_.value.code
    accepted = yaml.safe_load(capsys.readouterr().out)
    written = SETTINGS[stage.removesuffix("_unpaired")]
    assert accepted["monitor"] == written["monitor"] and accepted["seed_everything"] == SETTINGS["seed"]
    assert accepted["data"]["manifest"] == "rows.csv" and accepted["model"]["pretrained"] == "start"
    assert accepted["trainer"]["default_root_dir"] == str(run.out / stage)
    for part in ("trainer", "model", "data"):
        assert accepted[part].items() >= written[part].items()


def test_a_setting_that_fit_does_not_know_is_refused(run, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(base, "fit", given.extend)
    run.settings["voice"]["model"]["freezee"] = ["audio_encoder"]
    run.fit("voice", Path("rows.csv"), Path("start"))
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *given, "--print_config"])
    assert exit_.value.code and "freezee" in capsys.readouterr().err


def test_shares_of_languages_sum_to_one_and_pairs_are_of_known_kinds():
    corpus = SETTINGS["corpus"]
    for name in ("languages", "distilled_languages", "languages_again"):
        assert sum(corpus[name].values()) == pytest.approx(1)
    for name in ("pairs", "pairs_dev"):
        assert set(corpus[name]) == set(base.pair.__globals__["PAIR_KINDS"])
    base.augmentations(json.dumps(corpus["augment"]))
    for augment in corpus["unheard"].values():
        base.augmentations(json.dumps(augment))
        assert augment not in ({name: value} for name, value in corpus["augment"].items())


def test_a_trial_scales_counts_and_a_stage_has_its_own_draws(run):
    assert run.scaled(40_000) == 2_000 and run.scaled(100) == 60
    draws = [run.generator(stage).integers(1 << 30) for stage in ("corpus", "corpus", "words")]
    assert draws[0] == draws[1] != draws[2]


# ---------------------------------------------------------------------- stages


@pytest.fixture
def stages(monkeypatch, tmp_path):
    """Stages that note that they ran; `fails` names one that does not end."""
    ran, fails = [], []

    def stage(name):
        def function(run):
            ran.append(name)
            if name in fails:
                raise KeyboardInterrupt

        return function

    monkeypatch.setattr(base, "STAGES", {name: stage(name) for name in ("one", "two", "three", "packing")})
    monkeypatch.setattr(base, "STUDIES", {"study": stage("study")})

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["base.py", "--out", str(tmp_path / "out"), *arguments])
        base.main()

    return start, ran, fails


def test_stages_run_in_order_and_each_once(stages, tmp_path):
    start, ran, _ = stages
    start()
    assert ran == ["one", "two", "three", "packing"]
    assert list(json.loads((tmp_path / "out" / "seconds.json").read_text())) == ran
    start()
    assert len(ran) == 4
    start("--study", "study")
    assert ran[4:] == ["study"]


def test_an_interrupted_stage_is_the_first_of_the_next_start(stages):
    start, ran, fails = stages
    fails.append("two")
    with pytest.raises(KeyboardInterrupt):
        start()
    fails.clear()
    start("--until", "three")
    assert ran == ["one", "two", "two", "three"]


def test_a_folder_of_other_settings_is_refused_and_stays(stages, tmp_path, capsys):
    start, ran, _ = stages
    start("--share", ".5")
    before = (tmp_path / "out" / "base.yaml").read_bytes()
    with pytest.raises(SystemExit, match="was begun with other settings; accepted: another --out"):
        start("--share", ".6")
    assert (tmp_path / "out" / "base.yaml").read_bytes() == before and len(ran) == 4
    with pytest.raises(SystemExit):
        start("--share", "0")
    assert "--share is 0; accepted: above 0, to 1" in capsys.readouterr().err


def test_the_stages_are_in_the_order_in_which_they_need_each_other():
    assert list(base.STAGES) == ["corpus", "voice", "words_labelled", "words", "fusion", "packing"]
    assert set(FITS) - {"fusion_unpaired"} < set(base.STAGES) and "fusion_unpaired" in base.STUDIES


# ---------------------------------------------------------------------- corpus


def test_a_view_depends_on_name_view_and_seed_alone(tmp_path):
    generator, sources = np.random.default_rng(0), [tmp_path / "a" / "clip.wav", tmp_path / "b" / "clip.wav"]
    wave = generator.standard_normal(8000) * 0.1
    for source in sources:
        source.parent.mkdir()
        soundfile.write(source, wave, 16_000)
    augment = {"noise": {"snr_db": [3, 20], "p": 1}}

    def view(source, name="trained-1", seed=0):
        path = tmp_path / f"{source.parent.name}-{name}-{seed}.flac"
        base.write_view((str(source), str(path), name, augment, seed))
        return path.read_bytes()

    first = view(sources[0])
    assert first == view(sources[0]) == view(sources[1])
    assert len({first, view(sources[0], "trained-2"), view(sources[0], seed=1)}) == 3
    samples, rate = soundfile.read(tmp_path / "a-trained-1-0.flac")
    assert rate == 16_000 and len(samples) == 8000 and not np.allclose(samples, wave, atol=1e-3)


def test_the_corpus_has_views_of_clips_and_no_row_that_tests(run, monkeypatch):
    # one thread: jsonargparse, which checks the options, is not thread-safe
    monkeypatch.setattr(base, "ProcessPoolExecutor", lambda max_workers: ThreadPoolExecutor(1))
    run.share = 1.0
    run.settings["corpus"] |= {"views": 1, "unheard_every": 2, "texts": 90, "texts_dev": 60}
    base.corpus(run)
    clips = pd.read_csv(run.out / "corpus" / "clips.csv")
    assert clips.id.is_unique and all(Path(audio).exists() for audio in clips.audio)
    assert set(clips.split) == {"train", "dev"}
    by_split = clips.groupby(["split", "view"]).size()
    assert by_split["train"].to_dict() == {"original": 36, "trained-1": 36}
    assert by_split["dev"].to_dict() == {"original": 12, "gsm": 6, "hall": 6, "bright": 6, "studio": 6}
    texts = pd.read_csv(run.out / "corpus" / "texts.csv", keep_default_na=False)
    assert set(texts.split) == {"train", "dev"} and set(texts.label) == set(base.LABELS)
    before = (run.out / "corpus" / "clips.csv").read_bytes(), (run.out / "corpus" / "texts.csv").read_bytes()
    base.corpus(run)
    after = (run.out / "corpus" / "clips.csv").read_bytes(), (run.out / "corpus" / "texts.csv").read_bytes()
    assert before == after


def test_pairs_voices_and_texts_stay_in_their_split(run):
    rows = [
        (f"{split} {label} {i}", split, label)
        for split in ("train", "dev")
        for label in base.LABELS
        for i in "ab"
    ]
    tables = {name: pd.DataFrame(rows, columns=[name, "split", "label"]) for name in ("audio", "text")}
    tables["audio"] = tables["audio"].assign(text="Wait.", speaker="s", language="en")
    base.write_table(tables["audio"], run.out / "corpus" / "clips.csv")
    base.write_table(tables["text"].assign(language="en", source="a"), run.out / "words-distilled.csv")
    made = base.pairs(run).fillna("")
    assert made.id.is_unique
    for column in ("audio", "text"):
        given = made[made[column] != ""]
        assert (given[column].str.split().str[0] == given.split).all()
    assert (made[made.kind == "voice"].text == "").all() and (made[made.kind == "text"].audio == "").all()
    counts = made.groupby(["split", "kind"]).size()
    paired = {kind: run.scaled(count) for kind, count in run.settings["corpus"]["pairs"].items()}
    assert counts["train"].to_dict() == {"voice": 6, "text": 6, **paired}


# ---------------------------------------------------------------------- models


@pytest.fixture
def whisper(tmp_path):
    """A random Whisper of four layers."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=4, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(tmp_path / "whisper")
    return tmp_path / "whisper"


@torch.inference_mode()
def test_a_cut_whisper_is_the_whole_ones_lower_layers(whisper):
    cut, whole = base.cut_whisper(whisper, 3, 2.0), WhisperAudioEncoder.load(whisper)
    assert len(cut.layers) == cut.config.encoder_layers == cut.config.num_hidden_layers == 3
    assert cut.config.max_source_positions == cut.embed_positions.num_embeddings == 100
    assert not cut.embed_positions.weight.requires_grad
    for name, weight in cut.state_dict().items():
        given = whole.state_dict()[name]
        assert torch.equal(weight, given[:100] if name.startswith("embed_positions") else given), name
    features = torch.randn(1, 80, 200)
    states = cut(features, output_hidden_states=True).hidden_states
    assert len(states) == 4 and states[0].shape == (1, 100, 16)


def test_fusion_starts_from_the_trained_encoders(run, whisper, text_encoder):
    parts = run.settings["parts"]
    parts["audio"], parts["text"], parts["config"]["hidden_size"] = str(whisper), str(text_encoder), 16
    clips = [Path(audio) for audio in base.read_clips(run.data / "crema-d").audio[:4]]
    base.write_table(
        pd.DataFrame({"audio": map(str, clips), "split": "train", "emotion": ["happy", "anger"] * 2}),
        run.out / "corpus" / "clips.csv",
    )
    model, processor = base.voice_start(run)
    assert model.config.labels == ["anger", "happy"]
    stream = model.encoder.audio_stream
    assert stream.mean.abs().sum() > 0 and (stream.deviation > 0).all()
    assert processor.target_level == parts["target_level"]
    starts = {}

    def fit(stage, manifest, start):
        starts[stage] = start
        if stage == "voice":
            assert pd.read_csv(manifest).label.tolist() == ["happy", "anger"] * 2

    run.fit = fit
    base.voice(run)
    base.words_labelled(run)
    for stage, start in (("voice", starts["voice"]), ("words", starts["words_labelled"])):
        (run.out / stage).mkdir()
        start.rename(run.out / stage / "model")
    joined, processor = base.joined(run)
    config = joined.config
    assert (config.fusion, config.rationale_format) == ("cross_attention", "none")
    assert config.labels == list(base.LABELS) and processor.target_level == parts["target_level"]
    for stage, names in (
        ("voice", ("audio_encoder", "audio_stream")),
        ("words", ("text_encoder", "text_stream")),
    ):
        part = base.MmsrForSentimentReasoning.from_pretrained(run.out / stage / "model").encoder
        for name in names:
            given = getattr(part, name).state_dict()
            found = getattr(joined.encoder, name).state_dict()
            assert found.keys() == given.keys()
            assert all(torch.equal(found[key], given[key]) for key in given), name
    words = base.MmsrForSentimentReasoning.from_pretrained(run.out / "words" / "model")
    for given, found in (
        (words.sentiment_head, joined.sentiment_head),
        (words.encoder.fusion.norm, joined.encoder.fusion.norm),
        (words.encoder.fusion.layers[0], joined.encoder.fusion.text_layers[0].feed_forward),
    ):
        pairs = zip(given.state_dict().values(), found.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_voices_that_train_alone_are_balanced_by_label(run):
    labels = ["negative"] * 60 + ["neutral"] * 20 + ["positive"] * 25
    clips = pd.DataFrame({"label": labels, "audio": [f"{number}.ogg" for number in range(105)]})
    clips = clips.assign(split="train", text="Wait.", speaker="s", language="en")
    run.settings["corpus"]["alone_train"]["voice"] = 60
    run.share = 1.0
    base.write_table(pd.concat([clips, clips.assign(split="dev")]), run.out / "corpus" / "clips.csv")
    texts = pd.DataFrame({"label": base.LABELS, "text": list("abc"), "language": "en", "source": "a"})
    both = [texts.assign(split=split) for split in ("train", "dev")]
    base.write_table(pd.concat(both), run.out / "words-distilled.csv")
    made = base.pairs(run)
    alone = made[(made.kind == "voice") & (made.split == "train")]
    assert alone.label.value_counts().to_dict() == dict.fromkeys(base.LABELS, 20)
    assert alone.audio.is_unique
