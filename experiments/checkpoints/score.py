"""Score a checkpoint on rows that it was not trained or selected on, and append the figures to a log.

    python experiments/checkpoints/score.py --model runs/base/model
    python experiments/checkpoints/score.py --model demo --sets crema pairs --rows 50 --log runs/trial.jsonl

| set | rows | input |
|---|---|---|
| crema | CREMA-D, speakers with id mod 5 = 0 | audio |
| ravdess | RAVDESS, all speakers: no corpus of the training | audio |
| goemotions, brighter | development rows; brighter pooled and by language | text |
| xed, kajava | a tenth of the train rows, by language: the more probable of negative and positive | text |
| xed_neutral | the same tenth in the languages that have a neutral label | text |
| paper | the paper's training rows, vi and en: no corpus of the training | text |
| pairs | voices of crema with English texts of goemotions and brighter, four kinds | both, and either |
| calibration | crema; goemotions, brighter and xed_neutral; pairs that have a label | audio, text, both |
| outliers | silence, noise, music, tones; texts in other languages, nonsense (outliers.py) | audio, text |
| evidence | goemotions, brighter, xed, kajava, crema: what rationales name (evidence.py) | audio, text |

Intervals are 95 %, over speakers where these are known, else over rows. A difference from a baseline
(baselines.py, which is run before) is paired, model minus baseline. Pairs of a positive and a negative part
have no true label: they are compared with the rule that the voice decides (`held_out.RULE`, with its source).
Late fusion is the mean of the log-probabilities of audio alone and text alone.

Every scoring of a set is a line of the log, with the commit and the digest of the weights; lines are never
changed. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from baselines import BASELINES, ENCODER, mean_states, read_baselines
from evidence import emotions_of, score_forced, score_quotations, score_voices
from held_out import DATA, KINDS, SETS, HeldOut, Pair, crema_rows, load_sets, pairs, read_training_texts

from mmsr.data.corpora.source import SENTIMENTS
from mmsr.data.features.encoders import stored_audio
from mmsr.data.features.store import file_digest
from mmsr.data.manifest.manifest import COLUMNS, fingerprint
from mmsr.evaluation.calibration import calibration_metrics, softmax
from mmsr.evaluation.entries import evaluate_rows, mean_with_interval, speakers_of
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.names import MISSING, number
from mmsr.evaluation.run import predict_rows
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.files import Journal
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.model.packaged import checkpoint, is_packaged
from mmsr.progress import show_progress
from mmsr.records import Answer, Predict, Prediction, Progress, Utterance

ROOT = Path(__file__).resolve().parents[2]
LOG = Path(__file__).parent / "scorings.jsonl"
ALL = (*SETS, "pairs", "calibration", "outliers", "evidence")
OUTLIERS = 100  # of each kind
FORCED = 2000  # texts of which each label is forced, drawn from all sets
_LEAST = 1e-12  # a probability of 0 has a logarithm

Entry = dict[str, Any]


# ---------------------------------------------------------------------- answers


class Remembered:
    """A `Predict` that answers the same audio and text only once."""

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self._answers: dict[tuple[Any, Any], Answer] = {}

    def __call__(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Answer utterances, of which those that were answered before are looked up."""
        keys = [(_hashable(utterance.audio), utterance.text) for utterance in utterances]
        new = {key: one for key, one in zip(keys, utterances, strict=True) if key not in self._answers}
        if new:
            self._answers |= zip(new, self.predict(list(new.values())), strict=True)
        return [self._answers[key] for key in keys]


def _hashable(audio: str | bytes | np.ndarray | None) -> str | bytes | None:
    return audio.tobytes() if isinstance(audio, np.ndarray) else audio


def open_model(
    model: str,
    *,
    feature_store: Path | None,
    batch_size: int,
    rationale: bool = False,
    forced_label: str | None = None,
) -> Predict | None:
    """A checkpoint as a `Predict`, without rationales by default; None where it writes none.

    With `forced_label` the rationales explain this label.

    Raises:
        ValueError: It cannot be read, or has other labels.
    """
    pipe = load_pipeline(model)
    if tuple(pipe.model.config.labels) != SENTIMENTS:
        raise ValueError(
            f"labels of {model} are {', '.join(pipe.model.config.labels)}; accepted: {', '.join(SENTIMENTS)}"
        )
    if rationale and not pipe.model.writes_rationales:
        return None
    states = None
    if feature_store is not None:
        states = stored_audio(pipe.model, pipe.processor, feature_store, bf16=False, dtype="float32")
    options = {"rationale": rationale, "forced_label": forced_label}
    return predictor(pipe, batch_size=batch_size, audio_features=states, **options)


def alone(rows: Sequence[Utterance], column: str) -> list[Utterance]:
    """The rows with one modality, `audio` or `text`."""
    other = "text" if column == "audio" else "audio"
    return [replace(row, **{other: None}) for row in rows]


def restricted(rows: Sequence[Prediction], labels: Sequence[str]) -> list[Prediction]:
    """Predictions among some of the labels: the most probable of them, and their shares."""
    found = []
    for row in rows:
        scores = {label: row.scores[label] for label in labels}
        total = sum(scores.values()) or 1.0
        shares = {label: score / total for label, score in scores.items()}
        found.append(replace(row, scores=shares, predicted_label=max(shares, key=shares.__getitem__)))
    return found


def late_fusion(audio: Sequence[Prediction], text: Sequence[Prediction]) -> list[Prediction]:
    """Predictions by the mean of the log-probabilities of two predictions of the same rows."""
    found = []
    for rows in zip(audio, text, strict=True):
        logs = [[np.log(max(row.scores[label], _LEAST)) for label in SENTIMENTS] for row in rows]
        scores = dict(zip(SENTIMENTS, softmax(np.mean(logs, axis=0)[None])[0].tolist(), strict=True))
        found.append(replace(rows[0], scores=scores, predicted_label=max(scores, key=scores.__getitem__)))
    return found


# ---------------------------------------------------------------------- figures


def entry_of(rows: Sequence[Prediction], labels: Sequence[str]) -> Entry:
    """Metrics with intervals (see `evaluate_rows`), calibration, and the share of abstained answers."""
    entry = evaluate_rows(rows, labels)
    calibration = calibration_metrics(rows, labels)
    entry["calibration"] = {
        name: calibration[name] for name in ("n", "ece", "ece_equal_width", "brier", "nll")
    }
    if any(row.abstained is not None for row in rows):
        entry["abstained"] = mean_with_interval(np.array([bool(row.abstained) for row in rows]), rows)
    return entry


def difference(a: Sequence[Prediction], b: Sequence[Prediction]) -> Entry:
    """The paired difference in macro-F1 of two systems on the same rows; only `n` where there are too few."""
    speakers = speakers_of(a)
    found = {"n": len(a)}
    if len(a) < 2:
        return found
    drawn = paired_bootstrap(
        [str(row.label) for row in a],
        [str(row.predicted_label) for row in a],
        [str(row.predicted_label) for row in b],
        clusters=speakers,
    )
    return found | {
        "macro_f1": [drawn.a, drawn.b],
        "difference": drawn.difference,
        "interval": list(drawn.interval),
        "over": "rows" if speakers is None else "speakers",
    }


def by_language(rows: Sequence[Prediction]) -> dict[str, list[int]]:
    """Numbers of the rows: `all`, and those of each language where there are several."""
    groups = {"all": list(range(len(rows)))}
    languages = sorted({str(row.language) for row in rows})
    if len(languages) > 1:
        for language in languages:
            groups[language] = [i for i, row in enumerate(rows) if row.language == language]
    return groups


def score_set(
    found: HeldOut, predict: Predict, baselines: Mapping[str, Mapping[str, Prediction]], progress: Progress
) -> Entry:
    """The figures of one of `SETS`, with each baseline that has all of its rows."""
    rows = predict_rows(predict, alone(found.rows, found.column), progress=progress)
    rows = restricted(rows, found.labels)
    record: Entry = {
        "input": found.column,
        "labels": list(found.labels),
        "left_out": found.left_out,
        "metrics": entry_of(rows, found.labels),
        "baselines": {},
    }
    for name, known in baselines.items():
        if not all(row.id in known for row in rows):
            continue
        theirs = restricted([replace(row, scores=known[row.id].scores) for row in rows], found.labels)
        record["baselines"][name] = {
            group: difference([rows[i] for i in numbers], [theirs[i] for i in numbers])
            for group, numbers in by_language(rows).items()
        }
    if found.name == "paper":
        record["languages"] = {"en - vi": difference(*translations(rows, "en", "vi"))}
    return record


def translations(rows: Sequence[Prediction], a: str, b: str) -> tuple[list[Prediction], list[Prediction]]:
    """Rows of the paper in two languages: those that are there in both, in the same order."""
    of = {
        language: {row.id.rpartition("-")[2]: row for row in rows if row.language == language}
        for language in (a, b)
    }
    common = [key for key in of[a] if key in of[b]]
    return [of[a][key] for key in common], [of[b][key] for key in common]


def score_pairs(drawn: Mapping[str, Sequence[Pair]], predict: Predict, progress: Progress) -> Entry:
    """The figures of each kind of pair: fused, audio alone, text alone, and late fusion.

    Kinds with a label have metrics, and the paired differences of fused from the others. `conflicting` has
    the share that follows the voice (the rule), the text, or neither.
    """
    record: Entry = {"input": "audio+text", "rule": "the voice decides"}
    for kind, members in drawn.items():
        answered = pair_predictions(members, predict, progress)
        if kind != "conflicting":
            record[kind] = {name: entry_of(rows, SENTIMENTS) for name, rows in answered.items()}
            record[kind]["differences"] = {
                f"fused - {name}": difference(answered["fused"], rows)
                for name, rows in answered.items()
                if name != "fused"
            }
            continue
        record[kind] = {"n": len(members)}
        for name, rows in answered.items():
            labels = np.array([row.predicted_label for row in rows])
            voices, texts = (
                np.array([getattr(pair, part) for pair in members]) for part in ("voice", "text")
            )
            followed = {"voice": labels == voices, "text": labels == texts}
            followed["neither"] = ~(followed["voice"] | followed["text"])
            record[kind][name] = {what: mean_with_interval(hits, rows) for what, hits in followed.items()}
    return record


def pair_predictions(
    members: Sequence[Pair], predict: Predict, progress: Progress
) -> dict[str, list[Prediction]]:
    """The pairs' predictions, by what they are made from."""
    rows = [pair.row for pair in members]
    found = {
        "fused": predict_rows(predict, rows, progress=progress),
        "audio": predict_rows(predict, alone(rows, "audio"), progress=progress),
        "text": predict_rows(predict, alone(rows, "text"), progress=progress),
    }
    return found | {"late_fusion": late_fusion(found["audio"], found["text"])}


def score_calibration(
    sets: Sequence[HeldOut], drawn: Mapping[str, Sequence[Pair]], predict: Predict, progress: Progress
) -> Entry:
    """The calibration of each input on the held-out rows of corpora of the training."""
    audio, text = (
        [row for one in sets if one.column == column for row in alone(one.rows, column)]
        for column in ("audio", "text")
    )
    both = [pair.row for kind, members in drawn.items() if kind != "conflicting" for pair in members]
    record: Entry = {"input": "each"}
    for name, rows in (("audio", audio), ("text", text), ("audio+text", both)):
        found = calibration_metrics(predict_rows(predict, rows, progress=progress), SENTIMENTS)
        record[name] = {key: value for key, value in found.items() if key != "temperature"}
    return record


def score_outliers(
    predict: Predict, texts: Sequence[str], *, number: int, seed: int, progress: Progress
) -> Entry | None:
    """The share of made outliers on which the model abstains, by kind; None without outliers.py.

    THE PLACE OF outliers.py: its test sounds, `number` of each kind, its sentences in other languages, and
    `number` strings that are no language, made of held-out `texts`.
    """
    if importlib.util.find_spec("outliers") is None:
        return None
    made = importlib.import_module("outliers")
    rows = [Utterance(audio=one.waveform, kind=one.kind) for one in made.sounds(number, seed=seed, test=True)]
    for text in made.test_texts():
        rows.append(Utterance(text=text.text, language=text.kind, kind="other language"))
    for text in made.nonsense(texts, number, seed=seed, test=True):
        rows.append(Utterance(text=text.text, kind="nonsense"))
    answered = predict_rows(predict, rows, progress=progress)
    groups: dict[str, list[Prediction]] = {}
    for row in answered:
        groups.setdefault(str(row.kind), []).append(row)
        if row.language is not None:
            groups.setdefault(f"{row.kind}: {row.language}", []).append(row)
    abstained = {
        kind: mean_with_interval(np.array([bool(row.abstained) for row in members]), members)
        for kind, members in groups.items()
    }
    return {"input": "audio or text", "n": len(rows), "abstained": abstained}


def limited(rows: Sequence[Any], limit: int | None, seed: int) -> list[Any]:
    """At most `limit` of the rows, drawn by the seed, in their order."""
    if limit is None or len(rows) <= limit:
        return list(rows)
    kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit])
    return [rows[i] for i in kept]


# ---------------------------------------------------------------------- log


def model_folder(model: str) -> Path:
    """The folder of a checkpoint, packaged or not."""
    return checkpoint(model) if is_packaged(model) else Path(model)


def folder_name(folder: Path) -> str:
    """A folder's path in the repository, or outside of it its name."""
    folder = folder.resolve()
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else folder.name


def weights_digest(folder: Path) -> str:
    """16 hex digits of the weights' files (safetensors).

    Raises:
        ValueError: There is none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no weights; accepted: a folder with *.safetensors")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file_digest(str(file)))
    return digest.hexdigest()[:16]


def commit_of(repository: Path, *, besides: Path) -> Entry:
    """The `commit`, and whether files other than the log are not as in it (`dirty`); None where unknown."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=repository, capture_output=True, text=True, timeout=60, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    listed = git("status", "--porcelain", "--", ":/", f":(top,exclude,glob)**/{besides.name}")
    return {"commit": commit, "dirty": None if listed is None else bool(listed)}


def data_digest(rows: Sequence[Utterance]) -> str:
    """The `fingerprint` of rows, of which names and folders of audio files are no part."""
    table = {name: [getattr(row, name, None) for row in rows] for name in COLUMNS}
    features = datasets.Features({name: datasets.Value("string") for name in COLUMNS})
    return fingerprint(datasets.Dataset.from_dict(table, features=features))


def rounded(value: Any) -> Any:
    """A record with numbers to six decimals."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


# ---------------------------------------------------------------------- table


def table(records: Sequence[Entry]) -> str:
    """The figures of records as Markdown tables."""
    lines = []
    for record in records:
        if "metrics" in record:
            lines += _lines_of_set(record)
        elif record["set"] == "pairs":
            lines += _lines_of_pairs(record)
    if lines:
        header = "| set | n | macro-F1 | accuracy | ECE | abstained | baseline | macro-F1 | difference |"
        lines = [header, "|---|---:|---|---|---|---|---|---|---|", *lines, ""]
    more = [line for record in records for line in _lines_of_others(record)]
    return "\n".join([*lines, *more]).rstrip("\n")


def _figures(entry: Entry) -> list[str]:
    """n, macro-F1, accuracy, ECE and abstained share of an entry."""
    intervals = entry.get("interval", {})
    abstained = entry.get("abstained", {})
    return [
        str(entry["n"]),
        number(entry.get("macro_f1"), intervals.get("macro_f1")),
        number(entry.get("accuracy")),
        number(entry.get("calibration", {}).get("ece")),
        number(abstained.get("value")),
    ]


def _line(name: str, figures: Sequence[str], baseline: str = MISSING, found: Entry | None = None) -> str:
    found = found or {}
    theirs = number(found["macro_f1"][1]) if "macro_f1" in found else MISSING
    cells = [name, *figures, baseline, theirs]
    cells.append(number(found.get("difference"), found.get("interval"), signed=True))
    return f"| {' | '.join(cells)} |"


def _lines_of_set(record: Entry) -> list[str]:
    lines = []
    groups = {"all": record["metrics"]}
    languages = record["metrics"].get("by_language", {})
    groups |= languages if len(languages) > 1 else {}
    for group, entry in groups.items():
        name = record["set"] if group == "all" else f"{record['set']}, {group}"
        found = {
            baseline: entries[group] for baseline, entries in record["baselines"].items() if group in entries
        }
        lines += [_line(name, _figures(entry), *one) for one in found.items()] or [
            _line(name, _figures(entry))
        ]
    for pair, found in record.get("languages", {}).items():
        lines.append(_line(f"{record['set']}, {pair}", [str(found["n"]), *[MISSING] * 4], MISSING, found))
    return lines


def _lines_of_pairs(record: Entry) -> list[str]:
    lines = []
    for kind in KINDS:
        entry = record.get(kind, {})
        for name in ("fused", "audio", "text", "late_fusion"):
            if name in entry and kind != "conflicting":
                found = entry["differences"].get(f"fused - {name}")
                what = "fused minus it" if found else MISSING
                lines.append(_line(f"{kind}, {name}", _figures(entry[name]), what, found))
    return lines


def _lines_of_others(record: Entry) -> list[str]:
    """Conflicting pairs, calibration, outliers."""

    def share(entry: Entry) -> str:
        return number(entry.get("value"), entry.get("interval"))

    if record["set"] == "pairs" and "conflicting" in record:
        lines = [
            f"| conflicting ({record['rule']}) | voice | text | neither |",
            "|---|---|---|---|",
        ]
        for name, entry in record["conflicting"].items():
            if name != "n":
                cells = [share(entry[what]) for what in ("voice", "text", "neither")]
                lines.append(f"| {name} | {' | '.join(cells)} |")
        return [*lines, ""]
    if record["set"] == "calibration":
        lines = ["| calibration | n | ECE | ECE, equal width | Brier | NLL |", "|---|---:|---|---|---|---|"]
        for name in ("audio", "text", "audio+text"):
            if entry := record[name]:
                cells = [number(entry[key]) for key in ("ece", "ece_equal_width", "brier", "nll")]
                lines.append(f"| {name} | {entry['n']} | {' | '.join(cells)} |")
        return [*lines, ""]
    if record["set"] == "outliers":
        lines = ["| outliers | n | abstained |", "|---|---:|---|"]
        lines += [f"| {kind} | {one['n']} | {share(one)} |" for kind, one in record["abstained"].items()]
        return [*lines, ""]
    if record["set"] == "evidence":
        lines = [
            "| texts | n | quoted | said | words | erased, less than random |",
            "|---|---:|---|---|---|---|",
        ]
        for language, one in record["texts_quoted"].items():
            lost = one["erasure"].get("difference", {})
            cells = [share(one["quoted"]), number(one["said"]), number(one["words"]), share(lost)]
            lines.append(f"| {language} | {one['n']} | {' | '.join(cells)} |")
        lines += [
            "",
            "| forced | n | quoted | words | erased, less than random | less than the predicted label's |",
            "|---|---:|---|---|---|---|",
        ]
        for label, one in record["forced"]["labels"].items():
            lost = one["erasure"].get("difference", {})
            cells = [share(one["quoted"]), number(one["words"]), share(lost), share(one["against_predicted"])]
            lines.append(f"| {label} | {one['n']} | {' | '.join(cells)} |")
        lines += ["", "| quotations differ | n | share |", "|---|---:|---|"]
        for labels, one in record["forced"]["differs"].items():
            lines.append(f"| {labels} | {one['n']} | {share(one)} |")
        lines += ["", "| voices | share |", "|---|---|"]
        lines += [f"| {name} | {share(record[name])} |" for name in ("swapped", "phrase")]
        for what in ("vote", "acted"):
            lines += [f"| {what}, {name} | {share(found)} |" for name, found in record[what].items()]
        return [*lines, ""]
    return []


# ---------------------------------------------------------------------- command


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored, and with what.

    Attributes:
        model: Folder of a checkpoint, or the name of a packaged one.
        data: Folder of the corpora.
        sets: Some of `ALL`.
        texts: What the checkpoint was trained on (see `held_out.read_texts`); None leaves no row out.
        baselines: Folder that baselines.py left; None for none.
        log: File to append to.
        pairs: Number of pairs of each kind.
        rows: At most so many rows of each set and kind, for a trial.
        seed: Of the pairs, and of what `rows` draws.
        feature_store: Folder in which each clip's states are kept, since pairs use a clip many times.
        encoder: Whisper model of the probe of emotions, whose mean states are in `baselines`; None for none.
        batch_size: Utterances at a time.
    """

    model: str
    data: Path = DATA
    sets: Sequence[str] = ALL
    texts: Path | None = None
    baselines: Path | None = None
    log: Path = LOG
    pairs: int = 1000
    rows: int | None = None
    seed: int = 0
    feature_store: Path | None = None
    encoder: Path | None = None
    batch_size: int = 16
    progress: Progress = field(default_factory=show_progress)

    def run(self) -> list[Entry]:
        """Score each set and append its record to the log; returns the records.

        Raises:
            ValueError: A set is unknown, or a file or folder cannot be read.
        """
        if unknown := sorted(set(self.sets) - set(ALL)):
            raise ValueError(f"set is {', '.join(unknown)}; accepted: {', '.join(ALL)}")
        folder = model_folder(self.model)
        training = frozenset() if self.texts is None else read_training_texts(self.texts)
        known = {} if self.baselines is None else read_baselines(self.baselines, texts=self.texts)
        origin: Entry = {
            "model": folder_name(folder),
            "weights": weights_digest(folder),
            "texts": None if self.texts is None else file_digest(str(self.texts)).hex()[:16],
            "seed": self.seed,
            "limit": self.rows,
            "versions": dict(Provenance().versions),
        }
        opened = open_model(self.model, feature_store=self.feature_store, batch_size=self.batch_size)
        assert opened is not None
        predict = Remembered(opened)
        commit = commit_of(ROOT, besides=self.log)  # the code that is loaded now
        records = []
        with Journal(self.log, lambda entry: None) as journal:
            for name, score in self._scorers(predict, training, known).items():
                if name in self.sets and (figures := score()) is not None:
                    time = datetime.now(UTC).isoformat(timespec="seconds")
                    records.append(rounded({"time": time, **commit, **origin, "set": name, **figures}))
                    journal.add(records[-1])
        return records

    def _scorers(
        self, predict: Predict, training: frozenset[str], known: Mapping[str, Mapping[str, Prediction]]
    ) -> dict[str, Callable[[], Entry | None]]:
        """What computes the figures of each set."""

        def held_out(*names: str) -> list[HeldOut]:
            found = load_sets(self.data, names, training_texts=training)
            return [replace(one, rows=limited(one.rows, self.rows, self.seed)) for one in found]

        def drawn() -> dict[str, list[Pair]]:
            crema, *texts = load_sets(self.data, ("crema", "goemotions", "brighter"), training_texts=training)
            english = [row for one in texts for row in one.rows if row.language == "en"]
            n = self.pairs if self.rows is None else min(self.pairs, self.rows)
            return pairs(crema.rows, english, n=n, seed=self.seed)

        def one(name: str) -> Entry:
            (found,) = held_out(name)
            figures = score_set(found, predict, known, self.progress)
            return {"n": len(found.rows), "data": data_digest(found.rows), **figures}

        def all_pairs() -> Entry:
            found = drawn()
            rows = [pair.row for members in found.values() for pair in members]
            figures = score_pairs(found, predict, self.progress)
            return {"n": len(rows), "data": data_digest(rows), **figures}

        def calibration() -> Entry:
            sets = held_out("crema", "goemotions", "brighter", "xed_neutral")
            return score_calibration(sets, drawn(), predict, self.progress)

        def outliers() -> Entry | None:
            (found,) = held_out("goemotions")
            number = OUTLIERS if self.rows is None else min(OUTLIERS, self.rows)
            texts = [str(row.text) for row in found.rows]
            return score_outliers(predict, texts, number=number, seed=self.seed, progress=self.progress)

        def evidence() -> Entry | None:
            opened = {
                label: open_model(
                    self.model,
                    feature_store=self.feature_store,
                    batch_size=self.batch_size,
                    rationale=True,
                    forced_label=label,
                )
                for label in (None, *SENTIMENTS)
            }
            explain = opened.pop(None)
            forced = {str(label): one for label, one in opened.items() if one is not None}
            if explain is None:
                return None
            sets = held_out("goemotions", "brighter", "xed", "kajava")
            found = score_quotations(sets, explain, seed=self.seed, progress=self.progress)
            texts = limited([row for one in sets for row in one.rows], FORCED, self.seed)
            counterfactual = score_forced(texts, forced, seed=self.seed, progress=self.progress)
            crema = crema_rows(self.data)
            states = None
            if self.encoder is not None and self.baselines is not None and self.rows is None:
                paths = [str(row.audio) for row in crema]
                states = mean_states(self.encoder, paths, self.baselines / "states", progress=self.progress)
            if self.rows is not None:
                crema = limited([row for row in crema if row.split == "test"], self.rows, self.seed)
            voices = score_voices(
                crema, explain, emotions=emotions_of(self.data), states=states, progress=self.progress
            )
            return {
                "input": "audio or text",
                "n": found["all"]["n"],
                "texts_quoted": found,
                "forced": counterfactual,
                **voices,
            }

        scorers: dict[str, Callable[[], Entry | None]] = {name: partial(one, name) for name in SETS}
        return scorers | {
            "pairs": all_pairs,
            "calibration": calibration,
            "outliers": outliers,
            "evidence": evidence,
        }


def main() -> None:
    """Score, append, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="folder of a checkpoint, or the name of a packaged one"
    )
    parser.add_argument("--sets", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the corpora")
    parser.add_argument(
        "--texts", type=Path, default=Path("runs/base/texts.csv"), help="texts that the model was trained on"
    )
    parser.add_argument("--baselines", type=Path, default=Path("runs/base/baselines"), help="of baselines.py")
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--pairs", type=int, default=1000, help="of each kind")
    parser.add_argument("--rows", type=int, help="at most so many rows of each set and kind, for a trial")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs, and of what --rows draws")
    parser.add_argument("--feature-store", type=Path, help="keeps the clips' states, of which pairs use many")
    parser.add_argument(
        "--encoder", type=Path, default=ENCODER, help="Whisper model of the probe of emotions"
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, help="of torch")
    args = vars(parser.parse_args())
    if (threads := args.pop("threads")) is not None:
        torch.set_num_threads(threads)
    for name, without in (
        ("texts", "no row is left out for being in the training texts"),
        ("encoder", "no probe of emotions is compared"),
        ("baselines", f"no baseline ({', '.join(BASELINES)}) is compared"),
    ):
        if not args[name].exists():
            print(f"{args[name]} does not exist: {without}")
            args[name] = None
    try:
        print(table(Scoring(**args).run()))
    except ValueError as error:
        raise SystemExit(f"score.py: {error}") from None


if __name__ == "__main__":
    main()
