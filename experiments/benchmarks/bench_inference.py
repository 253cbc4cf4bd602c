"""Rows of `bench.py` that answer, encode, transcribe or decode."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import av
import librosa
import numpy as np
import soundfile
import soxr
import torch
from harness import Measured, alternate, costs
from material import RATE, SHARED, Clip, corpus, mixed_clips, write_clips
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoConfig, AutoModel, WhisperFeatureExtractor, pipeline
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import read_each
from mmsr.evaluation.error_rates import word_error_rate
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.inference.onnx import OnnxReasoner, export_onnx
from mmsr.inference.timeline.formats import write_timeline
from mmsr.inference.timeline.make import make_timeline
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.presets import SHAPES
from mmsr.records import Utterance
from mmsr.speech.recogniser import Transcriber
from mmsr.training.run import is_bf16, mixed_precision

WHISPER = SHARED / "models" / "whisper-base"
Found = Iterator[tuple[str, Measured | str]]


# ---------------------------------------------------------------------- answers


def _alike(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> tuple[bool, float]:
    """Whether labels and scores are the same, and the share of equal rationales (all but ties are)."""
    labels = all(own["label"] == other["label"] for own, other in zip(ours, theirs, strict=True))
    scores = max(
        abs(own["scores"][name] - other["scores"][name])
        for own, other in zip(ours, theirs, strict=True)
        for name in own["scores"]
    )
    rationales = np.mean(
        [own["rationale"] == other["rationale"] for own, other in zip(ours, theirs, strict=True)]
    )
    return bool(labels and scores < 1e-3 and rationales >= 0.98), float(rationales)


def batches_of_files(quick: bool) -> Found:
    """6a, 6b: a decoder's rationales for files on disk, by length, one by one and in file order."""
    count = 8 if quick else 128
    pipe = load_pipeline("demo")
    clips = mixed_clips(count)
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        paths = write_clips(clips, Path(folder))
        rows = [
            Utterance(id=str(n), audio=path, text=clip.text)
            for n, (path, clip) in enumerate(zip(paths, clips, strict=True))
        ]
        inputs = [{"audio": row.audio, "text": row.text} for row in rows]
        predict = predictor(pipe)

        def mmsr() -> list[dict[str, Any]]:
            return [
                {"label": found.label, "scores": found.scores, "rationale": found.rationale}
                for found in predict(rows)
            ]

        for row, size, repeats in (("6a", 1, 3), ("6b", 16, 5)):

            def other(size: int = size) -> Any:
                return pipe(inputs, batch_size=size, speech=False)

            turns = alternate(mmsr, other, repeats=2 if quick else repeats)
            same, share = _alike(*turns.results)
            yield (
                row,
                Measured(
                    ratios=turns.ratios,
                    same_result=same,
                    seconds=turns.medians,
                    note=f"{count} files of 1 to 20 s, the packaged `demo`; {share:.0%} of rationales equal.",
                    why="a core computes the rows of a batch one after the other, so that a batch saves "
                    "calls of Python and padding alone: the audio encoder, which costs a row as much in a "
                    "batch as alone, takes about an eighth of the time of one by one.",
                    costs=costs(mmsr),
                ),
            )


def all_rationales(quick: bool) -> Found:
    """7: label and rationale of every label for one clip at a time, warm."""
    pipe = load_pipeline("demo")
    model, processor = pipe.model, pipe.processor
    clips = corpus(2 if quick else 14)

    def mmsr() -> list[dict[str, Any]]:
        answers = [pipe({"audio": clip.wave, "text": clip.text}, alternatives=True) for clip in clips]
        return [
            {"label": found["label"], **found["alternatives"], found["label"]: found["rationale"]}
            for found in answers
        ]

    @torch.inference_mode()
    def other() -> list[dict[str, Any]]:
        answers = []
        for clip in clips:
            inputs = processor(audio=[clip.wave], text=[clip.text], return_tensors="pt")
            logits = model(**inputs).sentiment_logits
            answer = {"label": model.config.labels[int(logits.argmax(-1))]}
            for number, label in enumerate(model.config.labels):
                # the grammar of quotations is the checkpoint's own, so both sides write under it
                tokens = model.generate(
                    **inputs,
                    forced_sentiment=torch.tensor([number]),
                    do_sample=False,
                    max_new_tokens=processor.max_target_tokens,
                    logits_processor=[processor.quote_grammar([clip.text])],
                )
                (answer[label],) = processor.decode_rationales(tokens, [clip.text])
            answers.append(answer)
        return answers

    turns = alternate(mmsr, other, repeats=2 if quick else 7)
    yield (
        "7",
        Measured(
            ratios=turns.ratios,
            same_result=turns.results[0] == turns.results[1],
            seconds=turns.medians,
            note=f"{len(clips)} clips, one at a time, the packaged `demo`; label and three rationales each.",
            costs=costs(mmsr),
        ),
    )


# ---------------------------------------------------------------------- encoders


def _whisper_shape() -> Any:
    """Whisper base's encoder: pretrained where it is at hand, else with random weights."""
    if WHISPER.exists():
        return AutoModel.from_pretrained(WHISPER, dtype=torch.float32).get_encoder().eval()
    shape = {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048}
    config = AutoConfig.for_model("whisper", **shape)
    return WhisperEncoder._from_config(config, dtype=torch.float32).eval()


def _pooled(states: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Mean of states `[b, f, l, d]` over the real frames and the third and last layer, `[b, 2 d]`."""
    weights = mask[:, :, None, None] / mask.sum(1)[:, None, None, None]
    return (states[:, :, [3, -1]].float() * weights).sum(1).flatten(1).numpy()


def whisper_encoder(quick: bool) -> Found:
    """5a: Whisper base's states, over windows that are cut to the clips, and over 30 s each."""
    encoder = _whisper_shape()
    extract = WhisperFeatureExtractor(feature_size=80)
    model = MmsrForSentimentReasoning.from_encoders(
        audio=encoder, fusion="audio_only", audio_layer_mix=True, audio_window_seconds=3.0
    ).eval()

    @torch.inference_mode()
    def mmsr(clips: Sequence[Clip]) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        order = sorted(range(len(clips)), key=lambda row: len(clips[row].wave))
        for start in range(0, len(order), 8):
            rows = order[start : start + 8]
            waves, mask = _padded([clips[row].wave for row in rows])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
                states, frames = model.encoder.encode_audio(waves, mask)
            found |= dict(zip(rows, _pooled(states, frames), strict=True))
        return np.stack([found[row] for row in range(len(clips))])

    @torch.inference_mode()
    def other(clips: Sequence[Clip]) -> np.ndarray:
        found = []
        for clip in clips:
            features = extract(clip.wave, sampling_rate=RATE, return_tensors="pt").input_features
            output = encoder(features, output_hidden_states=True)
            states = torch.stack(output.hidden_states, dim=2)
            frames = min(states.shape[1], -(-len(clip.wave) // 320))
            found.append(_pooled(states[:, :frames], torch.ones(1, frames))[0])
        return np.stack(found)

    clips = mixed_clips(2 if quick else 6)
    turns = alternate(lambda: mmsr(clips), lambda: other(clips), repeats=2 if quick else 7)
    probed = corpus(12 if quick else 480, seed=3)
    scores = [_probe(side(probed), probed) for side in (mmsr, other)]
    yield (
        "5a",
        Measured(
            ratios=turns.ratios,
            same_result=abs(scores[0] - scores[1]) <= 0.01,
            seconds=turns.medians,
            precision=f"{mixed_precision()}, float32",
            note=f"{len(clips)} clips of 1 to 20 s, all layers; a probe's macro-F1 on {len(probed)} clips of "
            f"CREMA-D: {scores[0]:.3f}, {scores[1]:.3f}.",
            why="a window of 3 s gives other states than one of 30 s, which also attends to silence, and on "
            "so few clips the macro-F1 of both has a standard error of about .02.",
            costs=costs(lambda: mmsr(clips)),
        ),
    )


def _probe(states: np.ndarray, clips: Sequence[Clip]) -> float:
    """Macro-F1 of a logistic regression over states, each fifth of the clips held out once."""
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.003, class_weight="balanced", max_iter=2000)
    )
    labels = [clip.label for clip in clips]
    # clips come speaker by speaker: whole runs of them are held out
    parts = GroupKFold(5)
    groups = np.arange(len(clips)) * min(20, len(clips)) // len(clips)
    predicted = cross_val_predict(probe, states, labels, groups=groups, cv=parts)
    return float(f1_score(labels, predicted, average="macro"))


def wav2vec2_encoder(quick: bool) -> Found:
    """5b: states of a model of wav2vec2-base's shape with layer norm, which padding does not change."""
    shape = SHAPES["base"]["audio_encoder"] | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    encoder: Any = AutoModel.from_config(AutoConfig.for_model("wav2vec2", **shape)).eval()
    config = MmsrConfig(
        audio_encoder=encoder.config, fusion="audio_only", decoder_type="none", rationale_format="none"
    )
    model = MmsrForSentimentReasoning(config).eval()
    ours: Any = model.encoder.audio_encoder
    ours.model.load_state_dict(encoder.state_dict())
    clips = mixed_clips(4 if quick else 12, seed=1)
    size = 4 if quick else 6

    @torch.inference_mode()
    def mmsr() -> list[np.ndarray]:
        found: dict[int, np.ndarray] = {}
        order = sorted(range(len(clips)), key=lambda row: len(clips[row].wave))
        seconds = size * float(np.mean([clip.seconds for clip in clips]))
        for rows in _by_budget(order, clips, seconds):
            waves, mask = _padded([clips[row].wave for row in rows])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
                states, frames = model.encoder.encode_audio(waves, mask)
            for place, row in enumerate(rows):
                found[row] = states[place, frames[place] == 1, 0].float().mean(0).numpy()
        return [found[row] for row in range(len(clips))]

    @torch.inference_mode()
    def other() -> list[np.ndarray]:
        found = []
        for start in range(0, len(clips), size):
            waves, mask = _padded([clip.wave for clip in clips[start : start + size]])
            states = encoder(waves, attention_mask=mask).last_hidden_state
            frames = encoder._get_feature_vector_attention_mask(states.shape[1], mask)
            found += [row[real == 1].mean(0).numpy() for row, real in zip(states, frames, strict=True)]
        return found

    turns = alternate(mmsr, other, repeats=2 if quick else 5)
    a, b = (np.stack(side) for side in turns.results)
    cosine = ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()
    yield (
        "5b",
        Measured(
            ratios=turns.ratios,
            same_result=bool(cosine > 0.99),
            seconds=turns.medians,
            precision=f"{mixed_precision()}, float32",
            note=f"{len(clips)} clips of 1 to 20 s, random weights, layer norm in the front end; least "
            f"cosine of a clip's mean states {cosine:.4f}.",
            why="this CPU gains little from bfloat16.",
            costs=costs(mmsr),
        ),
    )


def _by_budget(order: Sequence[int], clips: Sequence[Clip], seconds: float) -> Iterator[list[int]]:
    """Batches of rows that are sorted by length, of at most so many padded seconds."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) + 1) * clips[row].seconds > seconds:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _padded(waves: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveforms as a batch `[b, s]`, and its mask."""
    batch = torch.zeros(len(waves), max(map(len, waves)))
    mask = torch.zeros_like(batch, dtype=torch.long)
    for row, wave in enumerate(waves):
        batch[row, : len(wave)], mask[row, : len(wave)] = torch.from_numpy(wave), 1
    return batch, mask


# ---------------------------------------------------------------------- transcription


def transcription(quick: bool) -> Found:
    """8a, 8b: English clips, by mmsr, by transformers' pipeline as it comes, and by faster-whisper."""
    if not WHISPER.exists():
        for row in ("8a", "8b"):
            yield row, f"no {WHISPER.name} in the shared models"
        return
    clips = corpus(2 if quick else 60, seed=5)
    recognise: Any = pipeline("automatic-speech-recognition", model=str(WHISPER))
    beams = Transcriber(str(WHISPER), language="en", num_beams=5)  # the default of transformers' pipeline
    greedy = Transcriber(str(WHISPER), language="en")
    english = {"language": "en", "task": "transcribe"}
    waves = [clip.wave for clip in clips]
    own = str(greedy._decoder.model.dtype)

    def other() -> list[str]:
        inputs = [{"raw": wave, "sampling_rate": RATE} for wave in waves]
        return [found["text"].strip() for found in recognise(inputs, generate_kwargs=english)]

    def compared(ours: Transcriber, other: Callable[[], list[str]], precision: str) -> Measured:
        turns = alternate(lambda: ours(waves), other, repeats=1 if quick else 2, warm=False)
        truth = [clip.text for clip in clips]
        rates = [word_error_rate(truth, result, "en")["wer"] for result in turns.results]
        return Measured(
            ratios=turns.ratios,
            same_result=rates[0] <= rates[1] + 0.005,
            seconds=turns.medians,
            precision=f"{own}, {precision}".replace("torch.", ""),
            note=f"{len(clips)} clips, whisper-base; {ours.num_beams} beam(s) on both "
            f"sides; word error rate {rates[0]:.3f}, {rates[1]:.3f}.",
            costs=costs(lambda: ours(waves)),
        )

    yield "8a", compared(beams, other, str(recognise.model.dtype))
    if not_installed := _without_faster_whisper():
        yield "8b", not_installed
        return
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        fast = _faster_whisper(folder)

        def faster() -> list[str]:
            found = (fast.transcribe(wave, language="en", beam_size=1)[0] for wave in waves)
            return [" ".join(segment.text.strip() for segment in segments) for segments in found]

        yield "8b", compared(greedy, faster, "int8")


def _without_faster_whisper() -> str | None:
    """Why faster-whisper cannot be measured, if it cannot."""
    missing = [name for name in ("ctranslate2", "faster_whisper") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (pip install faster-whisper)" if missing else None


def _faster_whisper(folder: str) -> Any:
    """The same weights for faster-whisper, in 8 bits."""
    from ctranslate2.converters import TransformersConverter
    from faster_whisper import WhisperModel

    converted = os.path.join(folder, "whisper")
    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(WHISPER), copy_files=copied).convert(converted, quantization="int8")
    return WhisperModel(converted, device="cpu", compute_type="int8", cpu_threads=torch.get_num_threads())


def long_recording(quick: bool) -> Found:
    """9: sentences with pauses in one file: speech found, transcribed, and by mmsr answered and written."""
    if not WHISPER.exists():
        yield "9", f"no {WHISPER.name} in the shared models"
        return
    if not_installed := _without_faster_whisper():
        yield "9", not_installed
        return
    from faster_whisper import BatchedInferencePipeline

    wanted = 60 if quick else 600  # seconds
    pause = np.zeros(int(0.8 * RATE), np.float32)
    parts: list[np.ndarray] = []
    texts: list[str] = []
    clips = corpus(wanted // 3, seed=9)
    for place in np.random.default_rng(9).permutation(len(clips)):  # a sentence again and again is a loop
        clip = clips[place]
        if sum(map(len, parts)) >= wanted * RATE:
            break
        parts += [clip.wave, pause]
        texts.append(clip.text)
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        path = os.path.join(folder, "recording.flac")
        soundfile.write(path, np.concatenate(parts), RATE)
        fast = BatchedInferencePipeline(model=_faster_whisper(folder))
        pipe = load_pipeline("base")
        recogniser = Transcriber(str(WHISPER), language="en", timestamps="auto", batch_size=16)
        turn = iter(range(100))

        def mmsr() -> str:
            out = os.path.join(folder, f"timeline{next(turn)}")
            timeline = make_timeline(path, pipe, transcriber=recogniser, language="en")
            write_timeline(timeline, out, player="none")
            return " ".join(part.text or "" for part in timeline.segments)

        def other() -> str:
            segments, _ = fast.transcribe(path, language="en", batch_size=8, beam_size=1)
            return " ".join(segment.text.strip() for segment in segments)

        turns = alternate(mmsr, other, repeats=1 if quick else 2, warm=False)
        rates = [word_error_rate([" ".join(texts)], [heard], "en")["wer"] for heard in turns.results]
        yield (
            "9",
            Measured(
                ratios=turns.ratios,
                same_result=rates[0] <= rates[1] + 0.005,
                seconds=turns.medians,
                why="mmsr times each word by Whisper's cross-attention, which transformers gives in its slow "
                "attention alone, and answers each segment; the other side does neither, and has 8 bits.",
                note=f"{len(texts)} sentences with pauses, {sum(map(len, parts)) / RATE / 60:.0f} minutes, "
                f"one file; silero-vad on both sides, models loaded before; word error rate {rates[0]:.3f}, "
                f"{rates[1]:.3f}. mmsr "
                "also answers each segment by `base` and writes its files.",
                costs=costs(mmsr),
            ),
        )


# ---------------------------------------------------------------------- exports


def exported(quick: bool) -> Found:
    """13e: `base` in torch and as graphs of 8 bits, one utterance at a time."""
    pipe = load_pipeline("base")
    clips = mixed_clips(4 if quick else 200, seed=11, longest=6.0)
    rows = [Utterance(id=str(n), audio=clip.wave, text=clip.text) for n, clip in enumerate(clips)]
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        export_onnx(pipe.model, pipe.processor, os.path.join(folder, "graphs"))
        by_graphs = OnnxReasoner(os.path.join(folder, "graphs"), precision="int8", batch_size=1)
        by_torch = predictor(pipe, batch_size=1)
        timed = rows[:40]
        turns = alternate(lambda: by_graphs(timed), lambda: by_torch(timed), repeats=2 if quick else 5)
        labels = [[answer.label for answer in predict(rows)] for predict in (by_graphs, by_torch)]
        alike = float(np.mean([one == other for one, other in zip(*labels, strict=True)]))
        yield (
            "13e",
            Measured(
                ratios=turns.ratios,
                same_result=alike >= 0.995,
                seconds=turns.medians,
                precision="int8, float32",
                why="torch multiplies matrices of this encoder as fast in float32 as onnxruntime in 8 bits, "
                "where the processor has AMX; the graphs need no torch.",
                note=f"{len(timed)} clips of 1 to 6 s with their words, one at a time; labels of {len(rows)} "
                f"clips alike in {alike:.1%}.",
                costs=costs(lambda: by_graphs(timed)),
            ),
        )


# ---------------------------------------------------------------------- growth


def growing_inputs(quick: bool) -> Found:
    """12a, 12b: clips of 1 s, ten times as many in the second job."""
    few, many = (20, 200) if quick else (1_000, 10_000)
    processor_pipe = load_pipeline("demo")
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        clips = [Clip(clip.wave[:RATE], clip.text, clip.label) for clip in corpus(100, seed=12)]
        paths = write_clips(clips, Path(folder))
        predict = predictor(processor_pipe, rationale=False)

        def answered(count: int) -> int:
            rows = [
                Utterance(id=str(n), audio=paths[n % 100], text=clips[n % 100].text) for n in range(count)
            ]
            return sum(len(predict(rows[start : start + 1_000])) for start in range(0, len(rows), 1_000))

        def decoded(count: int) -> int:
            found = read_each([paths[n % 100] for n in range(count)], Audio())
            return sum(not isinstance(wave, AudioError) for wave in found)

        for row, job in (("12a", answered), ("12b", decoded)):
            job(few)  # warm
            took, held = [], []
            for count in (few, many, few, many):
                start = time.perf_counter()
                assert job(count) == count
                took.append((time.perf_counter() - start) / count)
                held.append(getrusage(RUSAGE_SELF).ru_maxrss / 1e6)
            yield (
                row,
                Measured(
                    ratios=[took[1] / took[0], took[3] / took[2]],
                    same_result=True,
                    seconds=(took[1] * many, took[0] * few),
                    note=f"{few:,} and {many:,} clips of 1 s (100,000 are not measured); most memory after "
                    f"each {held[0]:.2f}, {held[1]:.2f} GB.",
                ),
            )


# ---------------------------------------------------------------------- files


def decoding(quick: bool) -> Found:
    """10a, 10b: files of several formats and rates, decoded, resampled and padded to a batch."""
    clips = mixed_clips(2 if quick else 16, seed=7)
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        files = _encoded(clips, Path(folder))
        paths = [path for name in files for path in files[name]]
        read_by_librosa = [path for name in files if name != "m4a" for path in files[name]]
        times = 1 if quick else 2
        jobs: dict[str, Callable[[], Any]] = {
            "mmsr": lambda: [_decoded(read_by_librosa)[0] for _ in range(times)],
            "librosa": lambda: [
                _padded([librosa.load(path, sr=RATE)[0] for path in read_by_librosa])[0] for _ in range(times)
            ],
        }
        turns = alternate(jobs["mmsr"], jobs["librosa"], repeats=2 if quick else 7)
        ours, theirs = (result[0] for result in turns.results)
        likeness = _least_correlation(ours, theirs)
        yield (
            "10a",
            Measured(
                ratios=turns.ratios,
                same_result=likeness > 0.999,
                seconds=turns.medians,
                note=f"{len(read_by_librosa)} files (mp3, wav of 44.1 and 48 kHz, flac), read {times} times; "
                f"least correlation of a file's samples {likeness:.5f}. librosa reads no m4a here.",
                why="most of the time is in libsndfile and soxr, which are the same on both sides; threads "
                "gain what cores are idle. mmsr decodes mp3 packet by packet, to find damage.",
                costs=costs(jobs["mmsr"]),
            ),
        )
        if find_spec("torchcodec") is None:
            yield "10b", "datasets' Audio decodes by torchcodec, which is not installed"
            return
        import datasets

        table = datasets.Dataset.from_dict({"audio": paths})
        table = table.cast_column("audio", datasets.Audio(sampling_rate=RATE, num_channels=1))

        def by_datasets() -> torch.Tensor:
            return _padded([row["audio"].get_all_samples().data[0].numpy() for row in table])[0]

        turns = alternate(lambda: _decoded(paths)[0], by_datasets, repeats=7)
        likeness = _least_correlation(*turns.results)
        yield (
            "10b",
            Measured(
                ratios=turns.ratios,
                same_result=likeness > 0.999,
                seconds=turns.medians,
                note=f"{len(paths)} files, m4a among them.",
                costs=costs(jobs["mmsr"]),
            ),
        )


def _decoded(paths: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Files as a batch `[b, s]`, and its mask."""
    waves = []
    for found in read_each(paths, Audio()):
        if isinstance(found, AudioError):
            raise found
        waves.append(found)
    return _padded(waves)


def _encoded(clips: Sequence[Clip], folder: Path) -> dict[str, list[str]]:
    """Paths of the clips by format: mp3 and m4a at 44.1 kHz, wav at 44.1 and 48 kHz, flac at 16 kHz."""
    found: dict[str, list[str]] = {name: [] for name in ("mp3", "m4a", "44.wav", "48.wav", "flac")}
    for number, clip in enumerate(clips):
        at = {rate: soxr.resample(clip.wave, RATE, rate).clip(-1, 1) for rate in (44_100, 48_000)}
        for name, paths in found.items():
            path = folder / f"{number}.{name}"
            paths.append(os.fspath(path))
            if name == "m4a":
                _write_m4a(path, at[44_100])
            else:
                rate = {"48.wav": 48_000, "flac": RATE}.get(name, 44_100)
                soundfile.write(path, at.get(rate, clip.wave), rate)
    return found


def _write_m4a(path: Path, wave: np.ndarray) -> None:
    with av.open(os.fspath(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _least_correlation(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The least correlation of two rows, over the samples that both have."""
    length = min(ours.shape[1], theirs.shape[1])
    return min(
        float(np.corrcoef(own[:length], other[:length])[0, 1])
        for own, other in zip(ours.numpy(), theirs.numpy(), strict=True)
    )
