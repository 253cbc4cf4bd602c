"""The demo corpus: healthcare sentences in five languages, spoken by espeak-ng, with labels and rationales.

A toy world whose answer is known: `grammar.RULE` gives the label and its reason from the *words* (complaint,
neutral fact, praise) and the *manner* of voice (even, upset, cheerful, weary). In a third of the rows the
words decide (`kind` is `words`: even voice), in a third the voice (`voice`: neutral words), in a third they
disagree (`conflict`: praise in an upset voice is sarcasm, ...). Each voice and each sentence belongs to one
split; key phrases are shared, since rationales quote them. `asr_text` is *simulated*: the text with random
errors in words and letters, not the output of a recogniser.

    seed ─► plan of utterances ─► espeak-ng (a process per core; 22,050 Hz) ─► trim ─► 16 kHz ─► level, noise
                                                                                                      │
                                                            manifest.csv, corpus.json, audio/*.flac ◄─┘

Everything is a function of the seed: the same seed gives the same bytes, and a row does not depend on others.
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
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import soundfile
import soxr

from mmsr import records
from mmsr.data.corpora.demo import speech
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
from mmsr.files import atomic_write
from mmsr.languages import language_code
from mmsr.progress import show_progress

VERSION = 1  # of the generator: another version makes another corpus from the same seed
MINIMUM = 60  # utterances, so that the development split has two rows of each kind
SPLITS = {"train": 0.7, "dev": 0.1, "test": 0.2}

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


#: Each manner differs from every other in two or more of speed, pitch range and loudness: base pitch alone
#: tells nothing about the manner of an unknown voice.
PROSODY: dict[Manner, Prosody] = {
    "even": Prosody(rate=188, pitch=44, range=25, gain=-0.5),
    "upset": Prosody(rate=285, pitch=64, range=65, gain=8.0),
    "cheerful": Prosody(rate=218, pitch=86, range=99, gain=3.0),
    "weary": Prosody(rate=142, pitch=20, range=8, gain=-7.5),
}


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A sentence in a voice and a manner; `dataclasses.replace` changes one, and the label follows.

    Attributes:
        language: A key of `LANGUAGES`.
        voice: An espeak-ng accent + variant, such as `en-us+f3`.
        sentence: Its words, in lower case.
        phrase: The part of the sentence that the rationale quotes.
        valence: What the words alone express.
        manner: How the voice speaks.
        take: Seed of the small variations (speed, pitch, level, noise).
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
        """What decides: `words`, `voice` or `conflict`; `agreement` is never in the corpus."""
        cell = (self.valence, self.manner)
        return next((kind for kind, cells in DESIGN.items() if cell in cells), "agreement")

    @property
    def speaker(self) -> str:
        """The voice as a speaker's name: `en-us-f3`."""
        return self.voice.replace("+", "-")


def ceilings() -> dict[str, dict[str, float]]:
    """Compute the best that a predictor of one modality can do, from the rule and the design.

    Text tells the valence alone and the voice tells the manner alone, so such a predictor maps valence (or
    manner) to a label, and all 27 (or 81) maps are tried. (Audio carries the words too: a model that
    recognises the spoken phrases can exceed the ceiling of audio.)

    Returns:
        `{"text" | "audio": {"accuracy", "macro_f1", "best_macro_f1"}}`: accuracy and macro-F1 of the most
        accurate map, and the highest macro-F1 over all maps.
    """
    count = len(LABELS)
    joint = {"text": np.zeros((count, count)), "audio": np.zeros((len(MANNERS), count))}  # [input, label]
    for shares in DESIGN.values():
        for (valence, manner), share in shares.items():
            label = LABELS.index(RULE[valence, manner][0])
            share_of_all = share / sum(shares.values()) / len(DESIGN)
            joint["text"][LABELS.index(valence), label] += share_of_all
            joint["audio"][MANNERS.index(manner), label] += share_of_all
    best = {}
    for modality, table in joint.items():
        scores = []
        for decision in itertools.product(range(count), repeat=len(table)):
            confusion = np.zeros((count, count))  # [predicted, true]
            np.add.at(confusion, list(decision), table)
            f1 = 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))
            scores.append((float(confusion.trace()), float(f1.mean())))
        accuracy, macro_f1 = max(scores)
        highest = max(score for _, score in scores)
        best[modality] = {"accuracy": accuracy, "macro_f1": macro_f1, "best_macro_f1": highest}
    return best


# ---------------------------------------------------------------------- plan


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Divide `total` in proportion to `shares`, by largest remainder."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def sentences_of(language: str, topic: Topic, phrase: str) -> dict[str, list[str]]:
    """Every sentence with a phrase, by split; the same division for every seed."""
    grammar = LANGUAGES[language]
    sentences = [
        " ".join(grammar.sentence.format(opener=opener, subject=subject, phrase=phrase, tail=tail).split())
        for opener, subject, tail in itertools.product(grammar.openers, topic.subjects, grammar.tails)
    ]
    random.Random(f"{language}/{phrase}").shuffle(sentences)
    remaining = iter(sentences)
    counts = apportion(len(sentences), list(SPLITS.values()))
    return {
        split: list(itertools.islice(remaining, count)) for split, count in zip(SPLITS, counts, strict=True)
    }


def voices_of(language: str, split: str) -> list[str]:
    """The voices of a language in one split; its accents alternate over all variants."""
    accents = itertools.cycle(LANGUAGES[language].accents)
    paired = [(of, f"{next(accents)}+{variant}") for of, variants in VARIANTS.items() for variant in variants]
    return [voice for of, voice in paired if of == split]


def deal(cards: Sequence[Card], rng: random.Random) -> Iterator[Card]:
    """Deal cards in random order without end; when none is left, all are shuffled again."""
    while True:
        yield from rng.sample(cards, len(cards))


def plan(utterances: int, seed: int) -> list[tuple[str, Utterance]]:
    """Draw the rows of a corpus, each with its split; the counts of every cell follow `DESIGN` as quotas.

    Raises:
        ValueError: There are fewer than `MINIMUM` utterances, or the seed is negative.
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
    """Fill a split: cells by quota, dealt to the languages in turn, in each to voices, phrases, sentences."""
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
    """Drop, misspell or replace about 15 % of a text's words (Chinese: characters), as a recogniser might."""
    grammar = LANGUAGES[language]
    tokens_of: Callable[[str], Sequence[str]] = list if language == "zh" else str.split
    parts = (part for topic in grammar.topics for part in (*topic.subjects, *sum(topic.phrases.values(), ())))
    vocabulary = sorted({token for part in parts for token in tokens_of(part)})
    written: list[str] = []
    for token in tokens_of(text):
        drawn = rng.random()
        if drawn < 0.03:
            continue
        if drawn < 0.07 or (drawn < 0.15 and len(token) < 3):
            token = rng.choice(vocabulary)
        elif drawn < 0.15:
            cut = rng.randrange(len(token) - 1)
            token = token[:cut] + token[cut + 1] + token[cut] + token[cut + 2 :]
        written.append(token)
    return ("" if language == "zh" else " ").join(written) or text


# ---------------------------------------------------------------------- speech


class _Take:
    """An utterance with the variations drawn from its `take`: how to speak it, how to treat the sound."""

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
        self._margin = rng.uniform(0.03, 0.10)  # seconds of silence at both ends
        self._noise = 10 ** (-rng.uniform(15, 35) / 20)
        self._pink = rng.random() < 0.5
        self._rng = rng

    def finish(self, pcm: bytes) -> np.ndarray:
        """Turn espeak-ng's samples into those of the corpus: int16 `[s]` at 16 kHz."""
        samples = np.frombuffer(pcm, dtype=np.int16) / 2**15
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
        samples = np.pad(samples[loud[0] : loud[-1] + 1], round(self._margin * speech.SAMPLE_RATE))
        samples = soxr.resample(samples, speech.SAMPLE_RATE, SAMPLE_RATE)
        samples = samples / np.sqrt(np.mean(samples**2))
        samples += self._noise * self._noise_like(len(samples))
        samples *= min(self._level, PEAK / np.abs(samples).max())
        return np.round(samples * 2**15).astype(np.int16)

    def _noise_like(self, length: int) -> np.ndarray:
        """White or pink noise `[s]` with an RMS of one."""
        noise = self._rng.standard_normal(length)
        if self._pink:
            spectrum = np.fft.rfft(noise, n=1 << (length - 1).bit_length())
            spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
            noise = np.fft.irfft(spectrum)[:length]
        return noise / np.sqrt(np.mean(noise**2))


def speak(utterances: Sequence[Utterance]) -> list[np.ndarray]:
    """Speak utterances: float32 waveforms `[s]` at 16 kHz, each the same whatever else is spoken.

    Raises:
        ValueError: espeak-ng is not installed, or does not know a voice.
    """
    waveforms: dict[int, np.ndarray] = {}
    _synthesise(utterances, waveforms.__setitem__)
    return [waveforms[i].astype(np.float32) / 2**15 for i in range(len(utterances))]


def _synthesise(utterances: Sequence[Utterance], deliver: Callable[[int, np.ndarray], None]) -> None:
    """Speak every utterance, a worker per core; `deliver(i, int16 samples)` is called from threads."""
    if not hasattr(os, "fork"):
        raise ValueError(f"the demo corpus is spoken by forked processes, which {sys.platform} does not have")
    count = max(1, min(os.cpu_count() or 1, len(utterances)))
    command = [sys.executable, "-P", speech.__file__]  # -P: modules in its folder shadow no others
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
            futures = [
                pool.submit(_converse, worker, range(start, len(utterances), count), utterances, deliver)
                for start, worker in enumerate(workers)
            ]
            try:
                for future in as_completed(futures):
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
    """Send a worker its share of the utterances and deliver its answers; `speech` has the protocol."""
    assert worker.stdin is not None and worker.stdout is not None
    takes = [_Take(utterances[i]) for i in share]
    # a worker that ended early has broken the pipe; its error is read below
    with contextlib.suppress(BrokenPipeError), worker.stdin:
        for take in takes:
            worker.stdin.write(json.dumps(take.job).encode() + b"\n")
    for i, take in zip(share, takes, strict=True):
        line = worker.stdout.readline() or b'{"error": "the process that speaks ended early"}'
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        deliver(i, take.finish(worker.stdout.read(answer["bytes"])))


# ---------------------------------------------------------------------- corpus


def make_demo(out: str | Path, *, utterances: int = 2400, seed: int = 0, progress: bool = True) -> Path:
    """Make the demo corpus in a folder (manifest.csv, corpus.json, audio/), whole or not at all.

    A folder that holds the same corpus (utterances, seed, version) already is left as it is.

    Returns:
        Path of the manifest.

    Raises:
        ValueError: `out` holds something else, there are fewer than `MINIMUM` utterances, or espeak-ng is
            missing.
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
    cells = [manifest_row(i, split, utterance) for i, (split, utterance) in enumerate(rows)]
    _write_corpus(out, identity, cells, [utterance for _, utterance in rows], progress=progress)
    return out / "manifest.csv"


def utterance_of(row: records.Utterance) -> Utterance | None:
    """The utterance that a row of the demo corpus was made of; None for a row of another source.

    The text has to be a sentence of the grammar, the speaker one of its voices, and label and rationale what
    the rule gives for one of the manners. The take is drawn from the id.
    """
    language = language_code(row.language)
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
    """Every sentence of a language, with its phrase and the phrase's valence."""
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
    """Speak rows of a demo corpus again with one change, and answer them by the rule.

    `manner`: the same voice in another manner that the design has for these words, so that a model has seen
    the combination. `voice`: the same manner in the (other) test voice of the language. Speed, pitch, level
    and noise vary anew within the manner.

    Args:
        rows: Rows of a manifest. Those that `utterance_of` does not know are left out.
        out: Folder of the new recordings and of a manifest.csv of what is returned. If it holds the same rows
            already, they are used again.
        change: What is changed.
        progress: Show progress on stderr.

    Returns:
        Manifest rows with the old ids, in order; `audio` is the path of the new recording.

    Raises:
        ValueError: `change` is unknown, `out` holds something else, or espeak-ng is missing.
    """
    if change not in ("manner", "voice"):
        raise ValueError(f"change {change!r} is unknown; accepted: manner, voice")
    known = [(row, utterance) for row in rows if (utterance := utterance_of(row)) is not None]
    spoken = [_changed(utterance, change) for _, utterance in known]
    cells = [
        {**manifest_row(i, str(row.split), utterance), "id": str(row.id)}
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
        manners = [manner for valence, manner in cells if valence == utterance.valence]
        return replace(
            utterance, manner=draw.choice([manner for manner in manners if manner != utterance.manner])
        )
    voices = [voice for voice in voices_of(utterance.language, "test") if voice != utterance.voice]
    return replace(utterance, voice=draw.choice(voices))


def quoted_evidence(rationale: str, language: str | None) -> tuple[str | None, str | None]:
    """The phrase and the manner's words in a rationale in the demo's style; None for what it does not name.

    Of several phrases or manners the longest is returned.
    """
    language = language_code(language)
    if language not in LANGUAGES:
        return None, None
    grammar = LANGUAGES[language]
    phrases = itertools.chain(*(grammar.phrases(valence) for valence in LABELS))
    words = max((phrase for phrase in phrases if phrase in rationale), key=len, default=None)
    # the phrase may hold a manner's words too
    rest = rationale.replace(words, "") if words else rationale
    return words, max((name for name in grammar.voices.values() if name in rest), key=len, default=None)


def manifest_row(i: int, split: str, utterance: Utterance) -> dict[str, str]:
    """Row `i` of the manifest, its columns in order."""
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


def _audio_path(i: int) -> str:
    return f"audio/demo-{i:06d}.flac"


def _holds(out: Path, identity: dict[str, str | int]) -> bool:
    """Whether a folder holds this corpus; raises ValueError if it holds something else."""
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


def _write_corpus(
    out: Path,
    identity: Mapping[str, str | int],
    cells: Sequence[Mapping[str, str]],
    utterances: Sequence[Utterance],
    *,
    progress: bool,
) -> None:
    """Speak and write a corpus, whole or not at all."""
    show = show_progress() if progress else None
    spoken, one_at_a_time = itertools.count(1), threading.Lock()
    with atomic_write(out) as folder:
        (folder / "audio").mkdir(parents=True)

        def write(i: int, samples: np.ndarray) -> None:
            soundfile.write(folder / _audio_path(i), samples, SAMPLE_RATE, subtype="PCM_16")
            if show is not None:
                with one_at_a_time:
                    show("speaking the demo corpus", next(spoken), len(utterances))

        _synthesise(utterances, write)
        with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(cells[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(cells)
        card = {**identity, "espeakng_loader": importlib.metadata.version("espeakng-loader")}
        (folder / "corpus.json").write_text(json.dumps(card, indent=2) + "\n")
