"""Train the checkpoint `base`: human speech and text in five languages.

    python experiments/checkpoints/base.py               all stages, about an hour on two cores
    python experiments/checkpoints/base.py --share .05   a trial of all stages in minutes

    corpus ─► voice ──────────────────────────► fusion ─► packing
         └──► words_labelled ─► words ───────────┘

Each stage leaves a folder in --out, and a stage whose folder is finished is not run again; an interrupted
training goes on where it was. The settings are those of base.yaml. `score.py` tests the result: no stage
reads a test row.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
import yaml
from corpus import LABELS, pair, read_clips, read_texts, sample_balanced, vary_names
from held_out import text_key
from outliers import known_texts, other_languages, outlier_rows, spoken
from torch import nn

from mmsr.data.audio.augmentation import Augmentations, row_generator
from mmsr.data.audio.decoding import Audio
from mmsr.files import write_file
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.inference.template import SENTIMENTS
from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.spectrogram import WhisperAudioEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning, save_model
from mmsr.model.processing import MmsrProcessor
from mmsr.progress import show_progress
from mmsr.records import Utterance
from mmsr.training.evidence import TaughtText, copy_voice_emotions, fit_text_evidence
from mmsr.training.outliers import fit_outlier_detectors
from mmsr.training.run import fit, is_bf16
from mmsr.workflows.calibration import calibrate_checkpoint
from mmsr.workflows.settings import Rows

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Run:
    """Settings, folders and share of a training of `base`."""

    def __init__(self, settings: dict[str, Any], out: Path, data: Path, share: float) -> None:
        self.settings, self.out, self.data, self.share = settings, out, data, share
        self.seed: int = settings["seed"]

    def scaled(self, count: int) -> int:
        """A count of rows, in a trial a share of it."""
        return max(60, round(count * self.share))

    def generator(self, stage: str) -> np.random.Generator:
        """The generator of a stage's draws."""
        return np.random.default_rng([self.seed, *stage.encode()])

    def fit(self, stage: str, manifest: Path, start: Path) -> None:
        """`mmsr fit` with the stage's settings, from a checkpoint."""
        settings = dict(self.settings[stage.removesuffix("_unpaired")])
        settings["seed_everything"] = self.seed
        settings["trainer"] = {**settings["trainer"], "default_root_dir": str(self.out / stage)}
        settings["model"] = {**settings["model"], "pretrained": str(start)}
        settings["data"] = {**settings["data"], "manifest": str(manifest)}
        path = self.out / f"{stage}.yaml"
        write_file(path, yaml.safe_dump(settings).encode())
        fit(["-c", str(path)])


# ---------------------------------------------------------------------- corpus


def corpus(run: Run) -> None:
    """Write clips.csv and texts.csv: which rows train and which select."""
    settings, generator = run.settings["corpus"], run.generator("corpus")
    clips = read_clips(run.data / "crema-d")
    clips = clips[clips.split != "test"]
    if run.share < 1:
        clips = clips.groupby(["split", "label"]).sample(frac=run.share, random_state=run.seed)
    texts = read_texts(run.data / "sentiment-text")
    train = sample_balanced(
        texts[texts.split == "train"],
        run.scaled(settings["texts"]),
        languages=settings["languages"],
        generator=generator,
    )
    dev = sample_balanced(
        texts[texts.split == "dev"],
        run.scaled(settings["texts_dev"]),
        languages=settings["languages"],
        generator=generator,
    )
    chosen = pd.concat([train, dev])
    chosen["text"] = vary_names(chosen.text, generator)
    write_table(chosen, run.out / "corpus" / "texts.csv")
    write_table(with_views(clips, run), run.out / "corpus" / "clips.csv")


def with_views(clips: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Clips with augmented copies: those that train, and those that judge how training carries over.

    Column `view` names the copy: `original`, `trained-1` ..., or a condition that is not used in training.
    """
    settings = run.settings["corpus"]
    trained = {f"trained-{number + 1}": settings["augment"] for number in range(settings["views"])}
    kinds = {"train": trained, "dev": settings["unheard"]}
    tables = [clips.assign(view="original")]
    jobs = []
    for split, views in kinds.items():
        for view, augment in views.items():
            part = clips[clips.split == split]
            if split == "dev":
                part = part.iloc[:: settings["unheard_every"]]
            folder = (run.out / "corpus" / "views" / view).resolve()
            paths = [str(folder / f"{Path(audio).stem}.flac") for audio in part.audio]
            jobs += [
                (source, path, view, augment, run.seed)
                for source, path in zip(part.audio, paths, strict=True)
            ]
            tables.append(part.assign(view=view, audio=paths))
    jobs = [job for job in jobs if not Path(job[1]).exists()]
    show = show_progress()
    with ProcessPoolExecutor(max_workers=2) as pool:
        for done, _ in enumerate(pool.map(write_view, jobs, chunksize=32)):
            if done % 256 == 0:
                show("views", done, len(jobs))
    table = pd.concat(tables)
    return table.assign(
        id=[f"{Path(audio).stem}-{view}" for audio, view in zip(table.audio, table["view"], strict=True)]
    )


@functools.cache
def augmentations(config: str) -> Augmentations:
    """Augmentations of a config in JSON, made once: to check their options takes a second."""
    return Augmentations(json.loads(config))


def write_view(job: tuple[str, str, str, dict[str, Any], int]) -> None:
    """Write one augmented copy of a clip, which depends on its name, the view and the seed alone."""
    source, path, view, augment, seed = job
    torch.set_num_threads(1)
    generator = row_generator(seed, epoch=0, row_id=f"{view}/{Path(source).stem}")
    change = augmentations(json.dumps(augment))
    samples = change(torch.from_numpy(Audio()(source)), generator=generator).numpy()
    buffer = io.BytesIO()
    soundfile.write(buffer, samples / max(1.0, np.abs(samples).max()), 16_000, format="FLAC")
    write_file(Path(path), buffer.getvalue())


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a manifest, each row with an id."""
    if "id" not in table:
        table = table.assign(id=[f"{path.stem}-{number}" for number in range(len(table))])
    write_file(path, table.to_csv(index=False).encode())


# ---------------------------------------------------------------------- what a training starts from


def starting_checkpoint(
    start: Path, make: Callable[[], tuple[MmsrForSentimentReasoning, MmsrProcessor]]
) -> Path:
    """The folder of the checkpoint that a training starts from, made once."""
    if not start.exists():
        save_model(*make(), start)
    return start


def processor_of(run: Run, labels: Sequence[str] = LABELS) -> MmsrProcessor:
    """The processor of all stages."""
    parts = run.settings["parts"]
    return MmsrProcessor.from_encoders(
        text=ROOT / parts["text"],
        labels=list(labels),
        text_prefix=parts["text_prefix"],
        target_level=parts["target_level"],
        rationale_format="none",
    )


# ---------------------------------------------------------------------- voice


def voice(run: Run) -> None:
    """Train stream and head on voices alone, to tell their six emotions apart; the speech encoder stays."""
    start = starting_checkpoint(run.out / "voice-start", lambda: voice_start(run))
    clips = pd.read_csv(run.out / "corpus" / "clips.csv")
    write_table(clips.assign(label=clips.emotion), run.out / "voices.csv")
    run.fit("voice", run.out / "voices.csv", start)


def voice_start(run: Run) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
    """Whisper's lower layers with an untrained head."""
    torch.manual_seed(run.seed)
    emotions = pd.read_csv(run.out / "corpus" / "clips.csv").emotion.unique()
    parts, processor = run.settings["parts"], processor_of(run, sorted(emotions))
    model = MmsrForSentimentReasoning.from_encoders(
        audio=cut_whisper(
            ROOT / parts["audio"], parts["audio_layers"], parts["config"]["audio_window_seconds"]
        ),
        processor=processor,
        fusion="audio_only",
        **parts["config"],
    )
    standardize(model, processor, run)
    return model, processor


def cut_whisper(folder: Path, layers: int, seconds: float) -> Any:
    """Whisper's encoder with its lower layers, and the positions of a window."""
    encoder: Any = WhisperAudioEncoder.load(folder)
    positions = round(50 * seconds)
    encoder.layers = encoder.layers[:layers]
    weights = encoder.embed_positions.weight[:positions]
    encoder.embed_positions = nn.Embedding.from_pretrained(weights, freeze=True)
    config = encoder.config
    config.encoder_layers = config.num_hidden_layers = layers
    config.max_source_positions = positions
    return encoder


@torch.inference_mode()
def standardize(model: MmsrForSentimentReasoning, processor: MmsrProcessor, run: Run) -> None:
    """Set the audio stream's mean and deviation from some training clips."""
    clips = pd.read_csv(run.out / "corpus" / "clips.csv")
    paths = clips.audio[clips.split == "train"]
    read = Audio()
    frames = []
    for path in paths[:: max(1, len(paths) // 128)]:
        inputs = processor(audio=read(path), return_tensors="pt")
        states, mask = model.encoder.encode_audio(inputs["input_values"], inputs["input_values_mask"])
        frames.append(model.encoder.audio_stream.kept_states(states[mask == 1]))
    model.encoder.audio_stream.set_statistics(torch.cat(frames))


# ---------------------------------------------------------------------- words


def words_labelled(run: Run) -> None:
    """Train the text encoder on labelled texts."""
    start = starting_checkpoint(run.out / "words-start", lambda: words_start(run))
    run.fit("words_labelled", run.out / "corpus" / "texts.csv", start)


def words_start(run: Run) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
    """The text encoder with an untrained head."""
    torch.manual_seed(run.seed)
    parts, processor = run.settings["parts"], processor_of(run)
    model = MmsrForSentimentReasoning.from_encoders(
        text=ROOT / parts["text"], processor=processor, fusion="text_only", **parts["config"]
    )
    return model, processor


def words(run: Run) -> None:
    """Go on with translations, whose label is the one that the model gives to the English original.

    In Vietnamese and French no corpus with human labels has neutral texts; the judgement of English does.
    """
    manifest = run.out / "words-distilled.csv"
    if not manifest.exists():
        rows = distilled(run)
        labelled = pd.read_csv(run.out / "corpus" / "texts.csv", keep_default_na=False)
        both = pd.concat([labelled[rows.columns], rows]).drop_duplicates()
        write_table(both, run.out / "texts.csv")  # what baselines learn from
        write_table(rows, manifest)
    run.fit("words", manifest, run.out / "words_labelled" / "model")


def distilled(run: Run) -> pd.DataFrame:
    """Translations with labels, beside fresh labelled texts."""
    settings, generator = run.settings["corpus"], run.generator("words")
    parallel = pd.read_csv(run.data / "sentiment-text" / "parallel.csv", keep_default_na=False)
    parallel = parallel.groupby("language").sample(frac=min(1.0, run.share), random_state=run.seed)
    originals = parallel.text_en.drop_duplicates().tolist()
    answers = answer(run.out / "words_labelled" / "model", originals)
    by_text = dict(zip(originals, answers, strict=True))
    scores = np.array([by_text[text] for text in parallel.text_en])
    parallel = parallel.assign(
        label=np.array(LABELS)[scores.argmax(1)], source="distilled-" + parallel.language, split="train"
    )
    sure = parallel[scores.max(1) >= settings["confidence"]]
    texts = read_texts(run.data / "sentiment-text")
    unseen = set(map(text_key, texts.text[texts.split != "train"]))
    translated = sample_balanced(
        sure[~sure.text.map(text_key).isin(unseen)],
        run.scaled(settings["distilled"]),
        languages=settings["distilled_languages"],
        generator=generator,
    )
    again = sample_balanced(
        texts[texts.split == "train"],
        run.scaled(settings["texts_again"]),
        languages=settings["languages_again"],
        generator=generator,
    )
    again["text"] = vary_names(again.text, generator)
    dev = pd.read_csv(run.out / "corpus" / "texts.csv", keep_default_na=False)
    columns = ["text", "label", "language", "source", "split"]
    return pd.concat([again[columns], translated[columns], dev.loc[dev.split == "dev", columns]])


def answer(model: Path, texts: list[str]) -> np.ndarray:
    """Probabilities `[n, labels]` of texts."""
    predict = predictor(load_pipeline(model), batch_size=128, rationale=False)
    order = np.argsort([len(text) for text in texts], kind="stable")  # less padding
    scores = np.zeros((len(texts), len(LABELS)))
    show = show_progress()
    for start in range(0, len(order), 2048):
        part = order[start : start + 2048]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
            answers = predict([Utterance(id=str(index), text=texts[index]) for index in part])
        scores[part] = [[answer.scores[label] for label in LABELS] for answer in answers]
        show("distilling", start + len(part), len(order))
    return scores


# ---------------------------------------------------------------------- fusion


def fusion(run: Run) -> None:
    """Train streams, cross-attention and head on pairs and on each input alone; the encoders stay."""
    manifest = run.out / "pairs.csv"
    if not manifest.exists():
        write_table(pairs(run), manifest)
    start = starting_checkpoint(run.out / "fusion-start", lambda: joined(run))
    run.fit("fusion", manifest, start)


def fusion_unpaired(run: Run) -> None:
    """The same training without pairs, for comparison; its model is scored like the other."""
    manifest = run.out / "unpaired.csv"
    rows = pd.read_csv(run.out / "pairs.csv", keep_default_na=False)
    write_table(rows[(rows.split == "dev") | rows.kind.isin(["voice", "text"])], manifest)
    run.fit("fusion_unpaired", manifest, run.out / "fusion-start")


def joined(run: Run) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
    """The trained encoders with their streams and feed-forward layers; the head is the one of the texts."""
    torch.manual_seed(run.seed)
    voice, words = (
        MmsrForSentimentReasoning.from_pretrained(run.out / stage / "model") for stage in ("voice", "words")
    )
    processor = MmsrProcessor.from_pretrained(run.out / "words" / "model")
    settings = {name: getattr(voice.config, name) for name in run.settings["parts"]["config"]}
    config = MmsrConfig(
        audio_encoder=voice.config.audio_encoder,
        text_encoder=words.config.text_encoder,
        decoder_type="none",
        **{**settings, **run.settings["parts"]["fusion_config"]},
        **processor.config_kwargs(),
    )
    model = MmsrForSentimentReasoning(config)
    for modality, part in (("audio", voice), ("text", words)):
        for name in (f"{modality}_encoder", f"{modality}_stream"):
            getattr(model.encoder, name).load_state_dict(getattr(part.encoder, name).state_dict())
        layers = getattr(model.encoder.fusion, f"{modality}_layers")
        for layer, trained in zip(layers, part.encoder.fusion.layers, strict=True):
            layer.feed_forward.load_state_dict(trained.state_dict())
    model.encoder.fusion.norm.load_state_dict(words.encoder.fusion.norm.state_dict())  # type: ignore[union-attr]
    model.sentiment_head.load_state_dict(words.sentiment_head.state_dict())
    return model, processor


def pairs(run: Run) -> pd.DataFrame:
    """Pairs, voices alone and texts alone, in one table."""
    settings, generator = run.settings["corpus"], run.generator("fusion")
    clips = pd.read_csv(run.out / "corpus" / "clips.csv")
    texts = pd.read_csv(run.out / "words-distilled.csv", keep_default_na=False)
    tables = []
    for split, kinds in (("train", settings["pairs"]), ("dev", settings["pairs_dev"])):
        voices, words = clips[clips.split == split], texts[texts.split == split]
        paired = pair(
            voices,
            words[words.language == "en"],
            {kind: run.scaled(count) for kind, count in kinds.items()},
            generator=generator,
        )
        alone = {"voice": voices.drop(columns="text"), "text": words}
        for kind, table in alone.items():
            count = run.scaled(settings[f"alone_{split}"][kind])
            if (kind, split) == ("voice", "train"):  # most clips of the corpus are negative
                table = table.groupby("label").sample(frac=1, random_state=run.seed)
                table = table.groupby("label").head(count // len(LABELS))
            table = table.sample(min(count, len(table)), random_state=run.seed)
            tables.append(table.assign(kind=kind, split=split))
            tables[-1]["id"] = [f"{split}-{kind}-{number}" for number in range(len(table))]
        tables.append(paired.assign(split=split, id=split + "-" + paired.id))
    columns = ["id", "audio", "text", "label", "language", "kind", "split", "voice_label", "text_label"]
    return pd.concat(tables).reindex(columns=columns)


# ---------------------------------------------------------------------- packing


def packing(run: Run) -> None:
    """Calibrate, fit the detectors of outliers, and store the model in 8 bits."""
    folder, work = run.out / "base", run.out / "packing"
    if folder.exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(run.out / "fusion" / "model", work)
    calibrate_checkpoint(work, Rows(run.out / "pairs.csv"))
    model, processor = MmsrForSentimentReasoning.from_pretrained(work), MmsrProcessor.from_pretrained(work)
    rows = outliers_of(run)
    found = fit_outlier_detectors(
        model,
        processor,
        known=rows["known"],
        held_out=rows["held_out"],
        outliers=rows["outliers"],
        layers=run.settings["packing"]["layers"],
    )
    for modality, fitted in found.items():
        print(f"{modality} outliers: threshold {fitted.threshold:.3f}, refused {fitted.refused}", flush=True)
    add_evidence(model, processor, run)
    for part, name in run.settings["packing"]["names"].items():
        model.config.part(part)._name_or_path = name  # not the folder of this machine
    save_model(model, processor, folder, weights="int8")
    (folder / "model.safetensors").chmod(0o644)  # it would be the owner's alone, in a wheel too


def add_evidence(model: MmsrForSentimentReasoning, processor: MmsrProcessor, run: Run) -> None:
    """Give the model the emotions of the voice's model, and heads that tell which words decide, and why."""
    copy_voice_emotions(model, MmsrForSentimentReasoning.from_pretrained(run.out / "voice" / "model"))
    settings = run.settings["evidence"]
    texts = pd.read_csv(run.out / "corpus" / "texts.csv", keep_default_na=False)
    kinds = texts[texts.split == "train"].groupby(["language", "label"])
    each = -(-run.scaled(settings["texts"]) // kinds.ngroups)
    drawn = kinds.sample(frac=1, random_state=run.seed).groupby(["language", "label"]).head(each)
    losses = fit_text_evidence(
        model,
        processor,
        marked=[TaughtText(text=row.text, language=row.language) for row in drawn.itertuples()],
        named=texts_with_emotions(run, "train", run.scaled(settings["named"])),
        emotions=list(settings["emotions"]),
        steps=settings["steps"],
        bf16=is_bf16(),
        seed=run.seed,
    )
    print(f"evidence: losses {losses}", flush=True)


def texts_with_emotions(run: Run, split: str, each: int) -> list[TaughtText]:
    """Up to `each` texts of each emotion by our names, languages in turn; no text contradicts its label."""
    ours = run.settings["evidence"]["emotions"]
    named = {theirs: name for name, names in ours.items() for theirs in names}
    texts = read_texts(run.data / "sentiment-text")
    texts = texts[(texts.split == split) & (texts.emotion != "")].drop_duplicates("text")
    texts = texts.sample(frac=1, random_state=run.seed)
    texts["found"] = [
        sorted(
            {named[name] for name in emotions.split() if name in named and SENTIMENTS[named[name]] == label}
        )
        for emotions, label in zip(texts.emotion, texts.label, strict=True)
    ]
    drawn = []
    for emotion in ours:
        own = texts[[emotion in found for found in texts.found]]
        turn = own.groupby("language").cumcount()
        drawn.append(own.loc[turn.sort_values(kind="stable").index].head(each))
    chosen = pd.concat(drawn).drop_duplicates("text")
    chosen["text"] = vary_names(chosen.text, run.generator("evidence"))
    return [
        TaughtText(text=row.text, emotions=row.found, language=row.language) for row in chosen.itertuples()
    ]


def outliers_of(run: Run) -> dict[str, list[Utterance]]:
    """Rows for `fit_outlier_detectors`: known ones, held-out ones, and outliers."""
    settings, generator = run.settings["packing"], run.generator("packing")
    clips = pd.read_csv(run.out / "corpus" / "clips.csv", keep_default_na=False)
    texts = pd.read_csv(run.out / "words-distilled.csv", keep_default_na=False)
    rows: dict[str, list[Utterance]] = {}
    for name, split in (("known", "train"), ("held_out", "dev")):
        count = run.scaled(settings["texts"])
        words, voices = texts[texts.split == split], clips[clips.split == split]
        words = words.sample(min(count, len(words)), random_state=run.seed)
        voices = voices.sample(min(run.scaled(settings["clips"]), len(voices)), random_state=run.seed)
        rows[name] = [Utterance(audio=path, language="en") for path in voices.audio]
        rows[name] += [
            Utterance(text=text, language=language)
            for text, language in zip(words.text, words.language, strict=True)
        ]
    known = [row.text for row in rows["known"] if row.text]
    read = Audio()
    rows["known"] += [
        Utterance(audio=spoken(read(row.audio), seed=number), language="en")
        for number, row in enumerate(rows["known"])
        if isinstance(row.audio, str) and generator.random() < settings["spoken"]
    ]
    rows["known"] += [
        Utterance(text=text.text, language=text.kind)
        for text in known_texts(run.scaled(settings["known_texts"]), seed=run.seed)
    ]
    rows["outliers"] = outlier_rows(
        known,
        seed=run.seed,
        sounds_of_each=run.scaled(settings["sounds_of_each"]),
        foreign=run.scaled(settings["foreign"]),
        strings=run.scaled(settings["strings"]),
        languages=other_languages(test=True),
    )
    return rows


# ---------------------------------------------------------------------- all

STAGES: dict[str, Callable[[Run], None]] = {
    "corpus": corpus,
    "voice": voice,
    "words_labelled": words_labelled,
    "words": words,
    "fusion": fusion,
    "packing": packing,
}


STUDIES: dict[str, Callable[[Run], None]] = {"fusion_unpaired": fusion_unpaired}
"""Stages that the checkpoint does not need."""


def seconds_of(run: Run) -> dict[str, float]:
    """Seconds of each finished stage."""
    path = run.out / "seconds.json"
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    """Run the stages that are not finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=HERE / "base.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--share", type=float, default=1.0, help="Share of the rows, for a trial.")
    parser.add_argument("--until", choices=STAGES, default="packing", help="The last stage to run.")
    parser.add_argument("--study", choices=STUDIES, help="Run this comparison in place of the stages.")
    args = parser.parse_args()
    if not 0 < args.share <= 1:
        parser.error(f"--share is {args.share:g}; accepted: above 0, to 1")
    settings = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    run = Run(settings, args.out, args.data, args.share)
    check_same(run)
    for stage, function in (STAGES if args.study is None else {args.study: STUDIES[args.study]}).items():
        if stage not in seconds_of(run):
            begun = time.monotonic()
            function(run)
            seconds = {**seconds_of(run), stage: round(time.monotonic() - begun, 1)}
            write_file(run.out / "seconds.json", json.dumps(seconds, indent=1).encode())
        print(f"{stage}: {seconds_of(run)[stage]:.0f} s", flush=True)
        if stage == args.until:
            break


def check_same(run: Run) -> None:
    """Refuse a folder of other settings.

    Raises:
        SystemExit: It was begun with other settings or another share.
    """
    path, content = run.out / "base.yaml", yaml.safe_dump({"share": run.share, **run.settings})
    if path.exists() and path.read_text(encoding="utf-8") != content:
        raise SystemExit(f"{run.out} was begun with other settings; accepted: another --out, or delete it")
    write_file(path, content.encode())


if __name__ == "__main__":
    main()
