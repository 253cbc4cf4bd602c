"""The demo corpus: healthcare sentences in five languages, spoken by espeak-ng, with labels and rationales.

A toy world whose answer is known: ``demo_grammar.RULE`` gives the label and its reason from the *words*
(complaint, neutral fact, praise) and the *manner* of voice (even, upset, cheerful, weary). In a third of the
rows the words decide (``kind`` = ``words``: even voice), in a third the voice (``voice``: neutral words), in
a third the two disagree (``conflict``: praise in an upset voice is sarcasm, ...). Voices and sentences belong
to one split each; evidence phrases are shared, since a rationale quotes them. ``asr_text`` is *simulated*:
the text with random errors in words and letters, not the output of a recogniser.

Data flow: seed -> plan of utterances -> espeak-ng (``demo_speech``, a process per core; 22,050 Hz) -> trim ->
resample to 16 kHz -> level -> noise -> FLAC, beside manifest.csv and corpus.json

Everything is a function of the seed: the same seed gives the same bytes, and a row does not depend on its
neighbours.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import soundfile
import soxr
from rich.console import Console
from rich.progress import Progress

from mmsr import records
from mmsr.data.corpora.demo import speech as demo_speech
from mmsr.data.corpora.demo.grammar import (
    DESIGN,
    LABELS,
    LANGUAGES,
    MANNERS,
    RULE,
    VARIANTS,
    Manner,
    Topic,
    Valence,
)

VERSION = 1  # of the generator: another version makes another corpus from the same seed
MINIMUM = 60  # utterances: the development split still has two rows of each kind
SPLITS = {"train": 0.7, "dev": 0.1, "test": 0.2}
COLUMNS = ("id", "audio", "text", "asr_text", "label", "rationale", "language", "speaker", "split", "kind")

SAMPLE_RATE = 16_000  # Hz, of the corpus
LEVEL_DB = -28.0  # RMS of a manner without gain, relative to full scale
PEAK = 0.97

Card = TypeVar("Card")


@dataclass(frozen=True, kw_only=True)
class Prosody:
    """How a manner is spoken: rate (words a minute), pitch and pitch range (espeak's 0 to 99), gain (dB)."""

    rate: float
    pitch: float
    range: float
    gain: float


#: Each manner differs from every other in at least two of speed, pitch range and loudness, since base pitch
#: alone says nothing about a voice never heard before.
PROSODY: dict[Manner, Prosody] = {
    "even": Prosody(rate=188, pitch=44, range=25, gain=-0.5),
    "upset": Prosody(rate=285, pitch=64, range=65, gain=8.0),
    "cheerful": Prosody(rate=218, pitch=86, range=99, gain=3.0),
    "weary": Prosody(rate=142, pitch=20, range=8, gain=-7.5),
}


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One sentence in one voice and manner; ``dataclasses.replace`` gives it another and the label follows.

    Attributes:
        language: A key of ``LANGUAGES``.
        voice: An espeak-ng accent + variant, such as ``en-us+f3``.
        sentence: What is said, lower case.
        phrase: The part of the sentence that the rationale quotes.
        valence: What the words alone express.
        manner: How the voice speaks.
        take: Seed of the small variations (speed, pitch, level, noise); the same take sounds the same.
    """

    language: str
    voice: str
    sentence: str
    phrase: str
    valence: Valence
    manner: Manner
    take: int = 0

    @property
    def label(self) -> str:
        """The sentiment that the rule gives."""
        return RULE[self.valence, self.manner][0]

    @property
    def rationale(self) -> str:
        """The reason, the quoted words and the manner of voice, in the utterance's language."""
        language = LANGUAGES[self.language]
        return language.rationale.format(
            reason=language.reasons[RULE[self.valence, self.manner][1]],
            phrase=self.phrase,
            voice=language.voices[self.manner],
        )

    @property
    def kind(self) -> str:
        """What decides: ``words``, ``voice`` or ``conflict``; ``agreement`` is never in the corpus."""
        cell = (self.valence, self.manner)
        return next((kind for kind, cells in DESIGN.items() if cell in cells), "agreement")

    @property
    def speaker(self) -> str:
        """The voice as a speaker's name: ``en-us-f3``."""
        return self.voice.replace("+", "-")


def ceilings() -> dict[str, dict[str, float]]:
    """Compute the best that a predictor of one modality can do, from the rule and the design's shares.

    Text tells the valence and nothing more, the voice tells the manner and nothing more, so such a predictor
    is a map from valence (or manner) to a label, and all 27 (or 81) maps are tried. (The audio carries
    the words too: a model that learns to recognise the spoken phrases can pass the audio's figure.)

    Returns:
        ``{"text" | "audio": {"accuracy", "macro_f1", "best_macro_f1"}}``: accuracy and macro-F1 of the most
        accurate map, and the highest macro-F1 over all maps.
    """
    cells = [
        (valence, manner, LABELS.index(RULE[valence, manner][0]), share / sum(shares.values()) / len(DESIGN))
        for shares in DESIGN.values()
        for (valence, manner), share in shares.items()
    ]
    ceilings = {}
    for modality, values in (("text", LABELS), ("audio", MANNERS)):
        joint = np.zeros((len(values), len(LABELS)))
        for valence, manner, label, share in cells:
            joint[values.index(valence if modality == "text" else manner), label] += share
        scores = []
        for decision in itertools.product(range(len(LABELS)), repeat=len(values)):
            confusion = np.zeros((len(LABELS), len(LABELS)))  # [predicted, true]
            for value, predicted in enumerate(decision):
                confusion[predicted] += joint[value]
            f1 = 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))
            scores.append((float(confusion.trace()), float(f1.mean())))
        accuracy, macro_f1 = max(scores)
        best = max(score for _, score in scores)
        ceilings[modality] = {"accuracy": accuracy, "macro_f1": macro_f1, "best_macro_f1": best}
    return ceilings


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Divide ``total`` in proportion to ``shares``, by largest remainder."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def sentences_of(language: str, topic: Topic, phrase: str) -> dict[str, list[str]]:
    """Return every sentence around an evidence phrase, by split; the same division for every seed."""
    grammar = LANGUAGES[language]
    sentences = [
        " ".join(grammar.sentence.format(opener=opener, subject=subject, phrase=phrase, tail=tail).split())
        for opener, subject, tail in itertools.product(grammar.openers, topic.subjects, grammar.tails)
    ]
    random.Random(f"{language}/{phrase}").shuffle(sentences)
    ends = list(itertools.accumulate(apportion(len(sentences), list(SPLITS.values()))))
    return {
        split: sentences[start:end] for split, start, end in zip(SPLITS, [0, *ends[:-1]], ends, strict=True)
    }


def voices_of(language: str, split: str) -> list[str]:
    """Return the voices of a language that speak in one split; the accents go round over all variants."""
    accents = itertools.cycle(LANGUAGES[language].accents)
    paired = [(of, f"{next(accents)}+{variant}") for of, variants in VARIANTS.items() for variant in variants]
    return [voice for of, voice in paired if of == split]


def deal(cards: Sequence[Card], rng: random.Random) -> Iterator[Card]:
    """Deal cards in random order for ever; when none is left, all are shuffled again."""
    while True:
        yield from rng.sample(cards, len(cards))


def plan(utterances: int, seed: int) -> list[tuple[str, Utterance]]:
    """Draw up a corpus: (split, utterance) row by row; the counts of every cell follow ``DESIGN`` as quotas.

    Raises:
        ValueError: If there are fewer than ``MINIMUM`` utterances or the seed is negative.
    """
    if utterances < MINIMUM:
        raise ValueError(f"utterances = {utterances}: the demo corpus has at least {MINIMUM}")
    if seed < 0:
        raise ValueError(f"seed = {seed}: a seed is 0 or more")
    rng = random.Random(seed)
    rows: list[tuple[str, Utterance]] = []
    for split, size in zip(SPLITS, apportion(utterances, list(SPLITS.values())), strict=True):
        rows += [(split, utterance) for utterance in _plan_split(split, size, rng)]
    rng.shuffle(rows)
    return [(split, replace(utterance, take=seed * 10**6 + i)) for i, (split, utterance) in enumerate(rows)]


def _plan_split(split: str, size: int, rng: random.Random) -> Iterator[Utterance]:
    """Fill one split: cells by quota, dealt round to languages, in each to voices, phrases, sentences."""
    languages = itertools.cycle(LANGUAGES)
    voices = {language: itertools.cycle(voices_of(language, split)) for language in LANGUAGES}
    phrases: dict[tuple[str, Valence], Iterator[str]] = {}
    sentences: dict[tuple[str, str], Iterator[str]] = {}
    for language, grammar in LANGUAGES.items():
        for valence in LABELS:
            phrases[language, valence] = deal(grammar.phrases(valence), rng)
        for topic in grammar.topics:
            for phrase in itertools.chain(*topic.phrases.values()):
                sentences[language, phrase] = deal(sentences_of(language, topic, phrase)[split], rng)
    for cells, total in zip(DESIGN.values(), apportion(size, [1] * len(DESIGN)), strict=True):
        for (valence, manner), count in zip(cells, apportion(total, list(cells.values())), strict=True):
            for language in itertools.islice(languages, count):
                phrase = next(phrases[language, valence])
                yield Utterance(
                    language=language,
                    voice=next(voices[language]),
                    sentence=next(sentences[language, phrase]),
                    phrase=phrase,
                    valence=valence,
                    manner=manner,
                )


def simulate_asr(text: str, *, language: str, rng: random.Random) -> str:
    """Return the text with about 15 % of its words (Chinese: characters) dropped, misspelt or replaced.

    A simulation of a recogniser's errors, not the output of one.
    """
    grammar = LANGUAGES[language]
    joint = "" if language == "zh" else " "
    vocabulary = sorted(
        {
            token
            for topic in grammar.topics
            for part in (*topic.subjects, *itertools.chain(*topic.phrases.values()))
            for token in (part if language == "zh" else part.split())
        }
    )
    heard: list[str] = []
    for token in text if language == "zh" else text.split():
        drawn = rng.random()
        if drawn < 0.03:
            continue
        if drawn < 0.07 or (drawn < 0.15 and len(token) < 3):
            token = rng.choice(vocabulary)
        elif drawn < 0.15:
            cut = rng.randrange(len(token) - 1)
            token = token[:cut] + token[cut + 1] + token[cut] + token[cut + 2 :]
        heard.append(token)
    return joint.join(heard) or text


def trim(samples: np.ndarray, *, margin: float) -> np.ndarray:
    """Cut the silence at both ends of espeak-ng's waveform [s] down to ``margin`` seconds of zeros."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return np.pad(samples[loud[0] : loud[-1] + 1], round(margin * demo_speech.SAMPLE_RATE))


def noise_like(rng: np.random.Generator, length: int, *, pink: bool) -> np.ndarray:
    """Make white or pink noise [s] with an RMS of one."""
    noise = rng.standard_normal(length)
    if pink:
        spectrum = np.fft.rfft(noise, n=1 << (length - 1).bit_length())
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
        noise = np.fft.irfft(spectrum)[:length]
    return noise / np.sqrt(np.mean(noise**2))


class _Take:
    """One utterance with the variations drawn from its ``take``: how to speak it, how to treat the sound."""

    def __init__(self, utterance: Utterance) -> None:
        rng = np.random.default_rng(utterance.take)
        prosody = PROSODY[utterance.manner]
        rate = prosody.rate * rng.uniform(0.95, 1.05)
        pitch = prosody.pitch + rng.uniform(-4, 4)
        pitch_range = prosody.range + rng.uniform(-6, 6)
        self.job = {
            "text": utterance.sentence,
            "voice": utterance.voice,
            "rate": round(rate),
            "pitch": min(max(round(pitch), 0), 99),
            "pitch_range": min(max(round(pitch_range), 0), 99),
        }
        self._level = 10 ** ((LEVEL_DB + prosody.gain + rng.uniform(-2, 2)) / 20)
        self._margin = rng.uniform(0.03, 0.10)  # seconds
        self._noise = 10 ** (-rng.uniform(15, 35) / 20)
        self._pink = rng.random() < 0.5
        self._rng = rng

    def finish(self, pcm: bytes) -> np.ndarray:
        """Turn espeak-ng's samples into the corpus' own: int16 [s] at 16 kHz."""
        speech = trim(np.frombuffer(pcm, dtype=np.int16) / 2**15, margin=self._margin)
        speech = soxr.resample(speech, demo_speech.SAMPLE_RATE, SAMPLE_RATE)
        speech = speech / np.sqrt(np.mean(speech**2))
        speech += self._noise * noise_like(self._rng, len(speech), pink=self._pink)
        speech *= min(self._level, PEAK / np.abs(speech).max())
        return np.round(speech * 2**15).astype(np.int16)


def speak(utterances: Sequence[Utterance]) -> list[np.ndarray]:
    """Speak utterances; returns float32 waveforms [s] at 16 kHz, each the same whatever else is spoken.

    Raises:
        ValueError: If espeak-ng is not installed, or it does not know a voice (the voice and what exists are
            named).
    """
    waveforms: dict[int, np.ndarray] = {}
    _synthesise(utterances, lambda i, samples: waveforms.update({i: samples}))
    return [waveforms[i].astype(np.float32) / 2**15 for i in range(len(utterances))]


def _synthesise(utterances: Sequence[Utterance], deliver: Callable[[int, np.ndarray], None]) -> None:
    """Speak every utterance, a worker per core; ``deliver(i, int16 samples)`` is called from threads."""
    if not hasattr(os, "fork"):
        raise ValueError(f"the demo corpus is spoken by forked processes, which {sys.platform} does not have")
    count = max(1, min(os.cpu_count() or 1, len(utterances)))
    command = [sys.executable, "-P", demo_speech.__file__]  # -P: its folder's modules shadow nothing
    with contextlib.ExitStack() as stack:
        workers = [
            # a session of its own: Ctrl-C reaches this process alone, which then ends them
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            )
            for _ in range(count)
        ]
        with ThreadPoolExecutor(count) as pool:
            done = [
                pool.submit(_converse, worker, range(start, len(utterances), count), utterances, deliver)
                for start, worker in enumerate(workers)
            ]
            try:
                for future in as_completed(done):
                    future.result()
            finally:
                for worker in workers:
                    worker.kill()


def _converse(
    worker: subprocess.Popen[bytes],
    share: Sequence[int],
    utterances: Sequence[Utterance],
    deliver: Callable[[int, np.ndarray], None],
) -> None:
    """Send a worker its share of the utterances, deliver its answers; protocol: see ``demo_speech``."""
    assert worker.stdin is not None and worker.stdout is not None
    takes = [_Take(utterances[i]) for i in share]
    # a worker that ended early has broken the pipe: what it says about that is read below
    with contextlib.suppress(BrokenPipeError), worker.stdin:
        for take in takes:
            worker.stdin.write(json.dumps(take.job).encode() + b"\n")
    for i, take in zip(share, takes, strict=True):
        line = worker.stdout.readline()
        answer: dict[str, Any] = (
            json.loads(line) if line else {"error": "the process that speaks ended early"}
        )
        if "error" in answer:
            raise ValueError(answer["error"])
        deliver(i, take.finish(worker.stdout.read(answer["bytes"])))


def make_demo(out: str | Path, *, utterances: int = 2400, seed: int = 0, progress: bool = True) -> Path:
    """Make the demo corpus in a folder (manifest.csv, corpus.json, audio/); returns the manifest's path.

    It is built beside ``out`` and renamed into place, so ``out`` is whole or absent. A folder that holds the
    same corpus (utterances, seed, generator version) already is left as it is.

    Raises:
        ValueError: If ``out`` holds anything else, there are fewer than ``MINIMUM`` utterances, or espeak-ng
            is missing.
    """
    out = Path(out)
    identity: dict[str, str | int] = {
        "corpus": "mmsr demo",
        "version": VERSION,
        "utterances": utterances,
        "seed": seed,
    }
    rows = plan(utterances, seed)
    if _holds(out, identity):
        print(f"{out} holds this demo corpus already ({utterances} utterances, seed {seed})", file=sys.stderr)
        return out / "manifest.csv"
    cells = [_manifest_row(i, split, utterance) for i, (split, utterance) in enumerate(rows)]
    _write_corpus(out, identity, cells, [utterance for _, utterance in rows], progress=progress)
    return out / "manifest.csv"


def utterance_of(row: records.Utterance) -> Utterance | None:
    """Read a manifest's row back into what the generator spoke; None where it is no row of this generator.

    A row is the generator's where its text is a sentence of its language, its speaker one of the voices, and
    its label and rationale are what the rule gives for one of the manners. The take is the id's own, not the
    original's, which no manifest tells.
    """
    language = row.language
    if language is None or language not in LANGUAGES:
        return None
    found = _sentences(language).get(row.text or "")
    accent, _, variant = (row.speaker or "").rpartition("-")
    variants = set(itertools.chain(*VARIANTS.values()))
    if found is None or variant not in variants or accent not in LANGUAGES[language].accents:
        return None
    phrase, valence = found
    for manner in MANNERS:
        utterance = Utterance(
            language=language,
            voice=f"{accent}+{variant}",
            sentence=str(row.text),
            phrase=phrase,
            valence=valence,
            manner=manner,
            take=zlib.crc32(str(row.id).encode()),
        )
        if (utterance.label, utterance.rationale) == (row.label, row.rationale):
            return utterance
    return None


@functools.cache
def _sentences(language: str) -> dict[str, tuple[str, Valence]]:
    """Every sentence of a language, with its evidence phrase and what that expresses."""
    return {
        sentence: (phrase, valence)
        for topic in LANGUAGES[language].topics
        for valence, phrases in topic.phrases.items()
        for phrase in phrases
        for sentence in itertools.chain(*sentences_of(language, topic, phrase).values())
    }


def respeak(
    rows: Sequence[records.Utterance],
    out: str | Path,
    *,
    change: Literal["manner", "voice"],
    progress: bool = True,
) -> list[records.Utterance]:
    """Speak rows of a demo corpus again, one thing changed, with the answer that the generator then gives.

    `manner`: the same voice in another manner, drawn by the row's id from those that the design has for these
    words, so that a model has met the combination. `voice`: the same manner in the (other) voice of the
    language that no training row has. Speed, pitch, level and noise vary anew within the manner.

    Args:
        rows: Of a manifest. Those that `utterance_of` does not know are left out.
        out: Folder of the new recordings and of a manifest.csv of what is returned. The same rows in it
            already are used again.
        change: What is changed.
        progress: Show a bar on stderr.

    Returns:
        Manifest rows with the old ids, in order; `audio` is the path of the new recording.

    Raises:
        ValueError: `change` is unknown, `out` holds anything else, or espeak-ng is missing.
    """
    if change not in ("manner", "voice"):
        raise ValueError(f"change {change!r} is unknown; accepted: manner, voice")
    known = [(row, utterance) for row in rows if (utterance := utterance_of(row)) is not None]
    spoken = [_changed(utterance, change) for _, utterance in known]
    cells = [
        {**_manifest_row(i, str(row.split), utterance), "id": str(row.id)}
        for i, ((row, _), utterance) in enumerate(zip(known, spoken, strict=True))
    ]
    out = Path(out)
    digest = hashlib.sha256(repr([*zip(cells, spoken, strict=True)]).encode()).hexdigest()
    identity: dict[str, str | int] = {
        "corpus": f"mmsr demo in another {change}",
        "version": VERSION,
        "rows": digest[:16],
    }
    if cells and not _holds(out, identity):
        _write_corpus(out, identity, cells, spoken, progress=progress)
    return [records.Utterance.from_row({**row, "audio": str(out / row["audio"])}) for row in cells]


def _changed(utterance: Utterance, change: str) -> Utterance:
    draw = random.Random(utterance.take)
    if change == "manner":
        cells = itertools.chain(*DESIGN.values())
        met = [manner for valence, manner in cells if valence == utterance.valence]
        return replace(
            utterance, manner=draw.choice([manner for manner in met if manner != utterance.manner])
        )
    voices = [voice for voice in voices_of(utterance.language, "test") if voice != utterance.voice]
    return replace(utterance, voice=draw.choice(voices))


def quoted_evidence(rationale: str, language: str | None) -> tuple[str | None, str | None]:
    """What a rationale in the demo's style names: an evidence phrase, and the words for a manner of voice.

    Each is None where the rationale names none of its language's; of several the longest.
    """
    if language not in LANGUAGES:
        return None, None
    grammar = LANGUAGES[language]
    phrases = itertools.chain(*(grammar.phrases(valence) for valence in LABELS))
    words = max((phrase for phrase in phrases if phrase in rationale), key=len, default=None)
    # what is quoted may hold such words too
    rest = rationale.replace(words, "") if words else rationale
    return words, max((name for name in grammar.voices.values() if name in rest), key=len, default=None)


def _write_corpus(
    out: Path,
    identity: Mapping[str, str | int],
    cells: Sequence[Mapping[str, str]],
    utterances: Sequence[Utterance],
    *,
    progress: bool,
) -> None:
    """Speak a corpus beside `out` and rename it into place, so that `out` is whole or absent."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (unfinished / "audio").mkdir()
        _write_audio(unfinished, utterances, progress=progress)
        with open(unfinished / "manifest.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(cells)
        (unfinished / "corpus.json").write_text(
            json.dumps(
                {**identity, "espeakng_loader": importlib.metadata.version("espeakng-loader")}, indent=2
            )
            + "\n"
        )
        unfinished.chmod(0o755)  # mkdtemp's folders are private
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _holds(out: Path, identity: dict[str, str | int]) -> bool:
    """Tell whether a folder holds this very corpus; raises ValueError where it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    card = out / "corpus.json"
    found: dict[str, Any] = {}
    if card.is_file() and (out / "manifest.csv").is_file():
        with contextlib.suppress(json.JSONDecodeError):
            found = json.loads(card.read_text())
    if identity.items() <= found.items():
        return True
    held = f"another corpus ({found})" if found else "something else"
    raise ValueError(f"{out} holds {held}, not the demo corpus {identity}: name another folder, or remove it")


def _audio_path(i: int) -> str:
    return f"audio/demo-{i:06d}.flac"


def _write_audio(folder: Path, utterances: Sequence[Utterance], *, progress: bool) -> None:
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("speaking the demo corpus", total=len(utterances))

        def write(i: int, samples: np.ndarray) -> None:
            soundfile.write(folder / _audio_path(i), samples, SAMPLE_RATE, subtype="PCM_16")
            bar.advance(task)

        _synthesise(utterances, write)


def _manifest_row(i: int, split: str, utterance: Utterance) -> dict[str, str]:
    rng = random.Random(utterance.take)
    return {
        "id": f"demo-{i:06d}",
        "audio": _audio_path(i),
        "text": utterance.sentence,
        "asr_text": simulate_asr(utterance.sentence, language=utterance.language, rng=rng),
        "label": utterance.label,
        "rationale": utterance.rationale,
        "language": utterance.language,
        "speaker": utterance.speaker,
        "split": split,
        "kind": utterance.kind,
    }
