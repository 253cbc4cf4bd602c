"""The report of a run: one self-contained HTML file, its pictures beside it, and its table as Markdown.

metrics.json, predictions.jsonl, training history, examples ─► pictures (PNG) ─► report.html
"""

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from mmsr.evaluation.calibration import (
    aurc,
    calibration_error,
    confidence_and_correct,
    reliability,
    risk_coverage,
)
from mmsr.evaluation.metrics import Row
from mmsr.evaluation.slices import worst_slice_line
from mmsr.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmsr.evaluation.compare import Comparison

NAMES = {
    "audio+text": "audio + text",
    "text": "text alone",
    "audio": "audio alone",
    "shuffled_audio": "text + another row's audio",
    "asr": "ASR transcript alone",
    "audio+asr": "audio + ASR transcript",
    "majority": "majority label",
    "tfidf": "TF-IDF + logistic regression",
    "constant_rationale": "constant rationale of the predicted label",
    "constant_rationale_oracle": "constant rationale of the true label",
}
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "uar": "UAR",
    "rougeL": "ROUGE-L (Unicode)",
    "rougeL_ascii": "ROUGE-L (ASCII)",
    "chrf": "chrF",
    "rationale_exact": "exact",
}
LABEL_FIGURES = ("accuracy", "macro_f1", "uar")
SLICED = ("accuracy", "macro_f1")
SLICES = 12  # of an attribute that the report shows; metrics.json has all
RATIONALE_BASELINES = ("constant_rationale", "constant_rationale_oracle")
MISSING = "–"

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8A8A8A"  # Okabe and Ito's: told apart by colour-blind eyes
LINES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
LABELLED_TOKENS = 40  # more tokens than this cannot all be named beside an attention map


class Attention(TypedDict):
    """What the attention picture shows of one utterance."""

    weights: Any  # [text tokens, audio frames]
    tokens: Sequence[str]
    waveform: Any  # [samples]
    rate: int  # Hz


class Example(TypedDict):
    """An utterance to show, with its sound as bytes or as the path of a file."""

    id: str
    audio_bytes: NotRequired[bytes | None]
    audio: NotRequired[str | None]
    mime: NotRequired[str | None]
    text: NotRequired[str | None]
    label: NotRequired[str | None]
    rationale: NotRequired[str | None]
    predicted_label: str
    scores: Mapping[str, float]
    predicted_rationale: NotRequired[str | None]
    kind: NotRequired[str | None]
    language: NotRequired[str | None]
    counterfactuals: NotRequired[Mapping[str, str]]
    attention: NotRequired[Attention | None]


class TableRow(NamedTuple):
    """One row of a table of figures, its cells as text."""

    name: str
    n: int
    cells: list[str]
    baseline: bool = False


def write_report(
    out_dir: Path | str,
    *,
    title: str,
    metrics: Mapping[str, Any],
    predictions: Sequence[Row],
    labels: Sequence[str],
    history: Sequence[Mapping[str, Any]] | None = None,
    examples: Sequence[Example] = (),
    split: str = "test",
) -> Path:
    """Writes report.html and its pictures to `out_dir` and returns the path of report.html.

    `metrics` is the content of metrics.json, of which `split` is shown. `history` has a row per epoch:
    `epoch`, and figures whose names end in `loss` (first panel) or start with `dev_` (second panel). The
    attention picture shows the first example that has `attention`. The HTML holds pictures and sounds within
    itself and loads nothing.

    Raises:
        ValueError: Where `metrics` lacks the split or has no condition in it, or an attention map does not
            fit its tokens.
    """
    from jinja2 import Environment, StrictUndefined

    entries = _entries(metrics, split)
    first = next(iter(entries))
    main = entries[first]
    answered = [row for row in predictions if row["condition"] == first]
    pictures = _pictures(metrics[split], labels, history, examples, answered, first=first)
    for name, png in pictures.items():
        write_file(Path(out_dir) / f"{name}.png", png)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("mmsr.evaluation").joinpath("report.html.jinja").read_text("utf-8")
    )
    html = template.render(
        title=title,
        split=split,
        metrics=metrics,
        columns=list(FIGURES.values()),
        headline=table_rows(metrics, split=split),
        first=NAMES.get(first, first),
        groups={
            "By kind of row": _group_rows(main.get("by_kind", {})),
            "By language": _group_rows(main.get("by_language", {})),
        },
        f1=[(label, _number(value)) for label, value in main.get("f1", {}).items()],
        interval_over=main.get("interval_over"),
        pictures={name: _data_uri(png, "image/png") for name, png in pictures.items()},
        confusion=main.get("confusion"),
        attention=next((e for e in examples if e.get("attention")), None),
        examples=[_shown(example) for example in examples],
        mistakes=_mistakes(answered),
        calibration=main.get("calibration"),
        conformal=main.get("conformal"),
        slices=_slice_rows(main.get("slices", {})),
        worst_slice=worst_slice_line(main["worst_slice"]) if "worst_slice" in main else None,
    )
    path = Path(out_dir) / "report.html"
    write_file(path, html.encode())
    return path


def markdown_table(metrics: Mapping[str, Any], *, split: str = "test") -> str:
    """Returns the report's first table (conditions, then baselines) as Markdown.

    `metrics` is the content of metrics.json.

    Raises:
        ValueError: Where `metrics` lacks the split, or the split has no condition.
    """
    lines = [["condition", "n", *FIGURES.values()], ["---", *["---:"] * (len(FIGURES) + 1)]]
    for row in table_rows(metrics, split=split):
        name = f"baseline: {row.name}" if row.baseline else row.name
        lines.append([name, str(row.n), *row.cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table_rows(metrics: Mapping[str, Any], *, split: str = "test") -> list[TableRow]:
    """Returns a row for each condition, then each baseline, of a split: figures as text in FIGURES' order.

    Raises:
        ValueError: Where `metrics` lacks the split, or the split has no condition.
    """
    rows = [
        TableRow(NAMES.get(name, name), entry["n"], _cells(entry))
        for name, entry in _entries(metrics, split).items()
    ]
    for name, entry in metrics[split].get("baselines", {}).items():
        if (
            name in RATIONALE_BASELINES
        ):  # its labels are the model's own or the truth: no figures of a baseline
            entry = {key: value for key, value in entry.items() if key not in LABEL_FIGURES}
        rows.append(TableRow(NAMES.get(name, name), entry["n"], _cells(entry), baseline=True))
    return rows


def _entries(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    if split not in metrics:
        raise ValueError(f"metrics have no split {split!r}; their keys are {', '.join(map(repr, metrics))}")
    entries = {name: entry for name, entry in metrics[split].items() if name != "baselines"}
    if not entries:
        raise ValueError(f"metrics of split {split!r} have no condition")
    return entries


def _cells(entry: Mapping[str, Any]) -> list[str]:
    return [_number(entry.get(figure), entry.get("interval", {}).get(figure)) for figure in FIGURES]


def _number(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return MISSING
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _group_rows(groups: Mapping[str, Mapping[str, Any]]) -> list[TableRow]:
    return [TableRow(name, entry["n"], _cells(entry)) for name, entry in groups.items()]


def _slice_rows(slices: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, list[TableRow]]:
    """Returns the rows of each attribute's table: quarters in order, values with the worst `SLICES` first."""
    tables = {}
    for attribute, entries in slices.items():
        names = list(entries)
        if not any(name.startswith("Q1: ") for name in names):
            names.sort(key=lambda name: entries[name]["accuracy"])
        tables[attribute.replace("_", " ")] = [
            TableRow(
                name,
                entries[name]["n"],
                [_number(entries[name][figure], entries[name]["interval"][figure]) for figure in SLICED],
            )
            for name in names[:SLICES]
        ]
    return tables


def _shown(example: Example) -> dict[str, Any]:
    scores = sorted(example["scores"].items(), key=lambda item: -item[1])
    sound, path = example.get("audio_bytes"), example.get("audio")
    if sound is None and path:
        sound = Path(path).read_bytes()
    mime = example.get("mime") or mimetypes.guess_type(path or "")[0] or "audio/wav"
    optional = ("text", "label", "rationale", "predicted_rationale", "kind", "language")
    return {
        "id": example["id"],
        "predicted_label": example["predicted_label"],
        **{key: example.get(key) for key in optional},
        "scores": [(label, f"{score:.3f}", f"{100 * score:.1f}") for label, score in scores],
        "sound": _data_uri(sound, mime) if sound else None,
        "counterfactuals": list((example.get("counterfactuals") or {}).items()),
    }


def _mistakes(rows: Sequence[Row], *, most: int = 10) -> list[dict[str, Any]]:
    """Returns the wrong answers of which the model was surest, for the reader to look into."""
    wrong = [row for row in rows if row["label"] is not None and row["label"] != row["predicted_label"]]
    wrong.sort(key=lambda row: (-row["scores"][row["predicted_label"]], row["id"]))
    return [{**row, "probability": f"{row['scores'][row['predicted_label']]:.3f}"} for row in wrong[:most]]


def _data_uri(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _pictures(
    conditions: Mapping[str, Any],
    labels: Sequence[str],
    history: Sequence[Mapping[str, Any]] | None,
    examples: Sequence[Example],
    answered: Sequence[Row],
    *,
    first: str,
) -> dict[str, bytes]:
    pictures = {}
    attention = next((example["attention"] for example in examples if example.get("attention")), None)
    with _style():
        if any("macro_f1" in entry for name, entry in conditions.items() if name != "baselines"):
            pictures["modalities"] = _png(draw_modalities(conditions))
        if "confusion" in conditions[first]:
            pictures["confusion"] = _png(draw_confusion(conditions[first]["confusion"], labels))
        if labelled := [row for row in answered if row["label"] is not None]:
            believed = confidence_and_correct(labelled)
            pictures["reliability"] = _png(draw_reliability(*believed))
            pictures["risk_coverage"] = _png(draw_risk_coverage(*believed))
        if attention:
            pictures["attention"] = _png(draw_attention(attention))
        if history:
            pictures["training"] = _png(draw_training(history))
    return pictures


def draw_modalities(conditions: Mapping[str, Any]) -> "Figure":
    """Draws macro-F1 (with its interval) and ROUGE-L of each condition and baseline as bars."""
    rows = [(name, entry, BLUE) for name, entry in conditions.items() if name != "baselines"]
    rows += [(name, entry, GREY) for name, entry in conditions.get("baselines", {}).items()]
    panels = {"macro_f1": "macro-F1 (95 % interval)", "rougeL": "ROUGE-L, Unicode"}
    panels = {figure: axis for figure, axis in panels.items() if any(figure in entry for _, entry, _ in rows)}
    figure, axes = _figure(len(panels), width=4 + 3.2 * len(panels), height=1.2 + 0.36 * len(rows))
    for ax, (key, axis) in zip(axes, panels.items(), strict=True):
        for y, (name, entry, colour) in enumerate(rows):
            own = not (name in RATIONALE_BASELINES and key in LABEL_FIGURES)
            if key not in entry or not own:
                continue
            ax.barh(y, entry[key], color=colour, height=0.7)
            low, high = entry.get("interval", {}).get(key, (entry[key], entry[key]))
            if high > low:
                ax.plot([low, high], [y, y], color="black", linewidth=1.5, marker="|", markersize=6)
            ax.text(max(high, entry[key]) + 0.02, y, f"{entry[key]:.3f}", va="center", fontsize=10)
        ax.set(xlim=(0, 1.15), xlabel=axis, xticks=[0, 0.25, 0.5, 0.75, 1])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks([])
    axes[0].set_yticks(range(len(rows)), [NAMES.get(name, name) for name, _, _ in rows])
    return figure


def draw_confusion(confusion: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> "Figure":
    """Draws a confusion matrix {gold: {predicted: count}}: counts, and each row's shares as shades."""
    counts = np.array([[confusion[gold][predicted] for predicted in labels] for gold in labels], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    side = 1.0 + 0.85 * len(labels)
    figure, (ax,) = _figure(1, width=side + 2.0, height=side + 0.9)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (y, x), share in np.ndenumerate(shares):
        text = f"{counts[y, x]:.0f}\n{100 * share:.0f} %"
        ax.text(x, y, text, ha="center", va="center", color="white" if share > 0.55 else "black")
    names = [_drawable(label, i) for i, label in enumerate(labels)]
    turned: dict[str, Any] = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(labels) > 3 else {}
    )
    ax.set_xticks(range(len(labels)), names, **turned)
    ax.set_yticks(range(len(labels)), names)
    ax.set(xlabel="predicted label", ylabel="true label")
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="share of the true label's rows", shrink=0.8)
    return figure


def draw_reliability(confidence: np.ndarray, correct: np.ndarray) -> "Figure":
    """Draws accuracy over confidence `[n]`, with 95 % intervals, in bins of as many rows; their histogram."""
    bins = reliability(confidence, correct)
    figure, (ax, rows) = _figure(2, width=5.4, height=5.6, heights=(4, 1))
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="calibrated")
    low, high = _wilson(bins.accuracy, bins.n)
    ax.vlines(bins.confidence, low, high, color=BLUE, linewidth=1.2, label="95 % interval")
    error = calibration_error(confidence, correct)
    ax.plot(bins.confidence, bins.accuracy, color=BLUE, marker="o", label=f"model (ECE {error:.3f})")
    ax.set(ylabel="accuracy (share of right answers)", xlim=(0, 1.02), ylim=(-0.02, 1.04))
    ax.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize=9, loc="outside upper left", ncols=3)  # a curve may go anywhere
    rows.hist(confidence, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, alpha=0.6)
    rows.set(xlabel="confidence (probability of the predicted label)", ylabel="rows")
    return figure


def draw_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> "Figure":
    """Draws the share of wrong answers over the share of rows answered, the surest first."""
    figure, (ax,) = _figure(1, width=5.4, height=4)
    lines = (
        ("model", confidence, BLUE, "-"),
        ("best order of the same answers", correct, GREY, "--"),
        ("random order", np.zeros(len(correct)), ORANGE, ":"),
    )
    top = 0.05
    for name, order, colour, style in lines:
        curve = risk_coverage(order, correct)
        area = f"{name} (AURC {aurc(order, correct):.3f})"
        ax.plot(curve.coverage, curve.risk, color=colour, linestyle=style, linewidth=2, label=area)
        top = max(top, 1.1 * float(curve.risk.max()))
    ax.set(
        xlabel="coverage (share of rows answered, surest first)",
        ylabel="risk (share of wrong answers)",
        xlim=(0, 1.02),
        ylim=(-0.02 * top, min(top, 1.04)),
    )
    ax.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize=9, loc="outside upper left")
    return figure


def _wilson(share: np.ndarray, n: np.ndarray, *, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 95 % interval of a binomial share of `n` rows (Wilson's score interval)."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def draw_training(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draws losses, and development figures beside them, over epochs."""
    from matplotlib.ticker import MaxNLocator

    # evaluated inside epochs, as a stream is, a run is measured in steps
    time = "step" if len({row["epoch"] for row in history}) < len(history) else "epoch"
    keys = list(dict.fromkeys(key for row in history for key in row if key not in ("epoch", "step")))
    losses = [key for key in keys if key.endswith("loss")]
    figures = [key for key in keys if key.startswith("dev_") and key not in losses]
    panels = [panel for panel in (("loss", losses), ("figure on the development split", figures)) if panel[1]]
    figure, axes = _figure(len(panels), width=4.6 * len(panels), height=3.6)
    for ax, (axis, names) in zip(axes, panels, strict=True):
        for i, name in enumerate(names):
            points = [(row[time], row[name]) for row in history if row.get(name) is not None]
            style: dict[str, Any] = {
                "color": LINES[i % len(LINES)],
                "marker": "os^Dvx"[i % 6],
                "markersize": 4,
            }
            ax.plot(*zip(*points, strict=True), label=name.replace("_", " "), **style)
        ax.set(xlabel=time, ylabel=axis)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", alpha=0.3)
        ax.legend(frameon=False, fontsize=9)
    return figure


def differences_picture(comparisons: "Sequence[Comparison]") -> bytes:
    """Returns the picture of `draw_differences` as PNG."""
    with _style():
        return _png(draw_differences(comparisons))


def draw_differences(comparisons: "Sequence[Comparison]") -> "Figure":
    """Draws comparisons as a forest plot: differences with their intervals over rows and over seeds.

    A filled mark is a difference that holds after Holm's correction, an open one does not.
    """
    from matplotlib.lines import Line2D

    first, count = comparisons[0], len(comparisons)
    figure, (ax,) = _figure(1, width=8.5, height=1.9 + 0.6 * count)
    ax.axvline(0, color="black", linewidth=1)
    for y, one in enumerate(comparisons):
        holds = one.p_holm < 0.05
        style: dict[str, Any] = {"color": BLUE, "markerfacecolor": BLUE if holds else "white"}
        ax.plot(one.interval, [y, y], color=BLUE, linewidth=2.5, solid_capstyle="butt", zorder=2)
        ax.plot(one.difference, y, marker="o", markersize=8, markeredgewidth=2, zorder=3, **style)
        if one.seeds is not None and one.seeds.interval is not None:
            ax.plot(one.seeds.interval, [y + 0.22] * 2, color=ORANGE, linewidth=1.5, linestyle=(0, (3, 1)))
        p = "< .001" if one.p_holm < 0.001 else f"= {one.p_holm:.3f}".replace("0.", ".", 1)
        said = f"{one.difference:+.3f} [{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]  p {p}"
        ax.text(1.02, y, said, transform=ax.get_yaxis_transform(), va="center", fontsize=10)
    names = [
        f"{_drawable(one.a, 2 * i)}\n- {_drawable(one.b, 2 * i + 1)}" for i, one in enumerate(comparisons)
    ]
    ax.set_yticks(range(count), names, fontsize=10)
    ax.set_ylim(count - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    figure_name = FIGURES.get(first.metric, first.metric)
    same = all(one.condition == first.condition for one in comparisons)  # else their names tell
    condition = f" ({NAMES.get(first.condition, first.condition)})" if same else ""
    ax.set_xlabel(f"difference of {figure_name}{condition}\n95 % intervals, {first.rows:,} rows")
    mark: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 8, "markeredgewidth": 2}
    corrected = " after Holm's correction" if count > 1 else ""
    shown = [
        Line2D([], [], linewidth=2.5, label=f"over {first.units:,} {first.over}; p < .05{corrected}", **mark),
        Line2D([], [], linewidth=2.5, label="p not below .05", markerfacecolor="white", **mark),
    ]
    if any(one.seeds is not None and one.seeds.interval is not None for one in comparisons):
        shown.append(Line2D([], [], color=ORANGE, linewidth=1.5, linestyle=(0, (3, 1)), label="over seeds"))
    figure.legend(handles=shown, loc="outside upper center", ncols=len(shown), frameon=False, fontsize=9)
    return figure


def draw_attention(attention: Attention) -> "Figure":
    """Draws a waveform, its mel spectrogram and each text token's attention to it, on one axis of seconds.

    Raises:
        ValueError: Where the map's first axis is not as long as the tokens.
    """
    import librosa
    import librosa.display

    weights, tokens = np.asarray(attention["weights"], dtype=float), list(attention["tokens"])
    waveform, rate = np.asarray(attention["waveform"], dtype=np.float32), attention["rate"]
    if weights.ndim != 2 or weights.shape[0] != len(tokens):
        raise ValueError(
            f"attention of shape {weights.shape} does not fit {len(tokens)} tokens [tokens, frames]"
        )
    seconds = len(waveform) / rate
    rows = max(2.0, 0.24 * min(len(tokens), LABELLED_TOKENS))
    figure, (wave, mel, heat) = _figure(3, width=8, height=3.6 + rows, heights=(1, 1.6, rows))

    wave.plot(np.arange(len(waveform)) / rate, waveform, color=BLUE, linewidth=0.5)
    wave.set(ylabel="amplitude", xlim=(0, seconds))
    power = librosa.feature.melspectrogram(y=waveform, sr=rate, n_fft=512, hop_length=160, n_mels=64)
    decibels = librosa.power_to_db(power, ref=np.max)
    sizes: dict[str, Any] = {"sr": rate, "hop_length": 160, "n_fft": 512, "fmax": rate / 2}
    image = librosa.display.specshow(decibels, ax=mel, x_axis="time", y_axis="mel", cmap="magma", **sizes)
    mel.set(xlabel="", ylabel="frequency (Hz)", yticks=[256, 1024, 4096])
    figure.colorbar(image, ax=mel, label="dB", pad=0.01)
    shades = heat.imshow(
        weights,
        aspect="auto",
        cmap="cividis",
        extent=(0, seconds, len(tokens) - 0.5, -0.5),
        interpolation="nearest",
    )
    figure.colorbar(shades, ax=heat, label="attention", pad=0.01, aspect=12.5 * rows)
    step = -(-len(tokens) // LABELLED_TOKENS)
    shown = range(0, len(tokens), step)
    heat.set_yticks(shown, [_drawable(tokens[i], i) for i in shown], fontsize=9)
    heat.set(xlabel="time (s)", ylabel="text token")
    wave.tick_params(labelbottom=False)
    mel.tick_params(labelbottom=False)
    return figure


def _style() -> AbstractContextManager[None]:
    """Returns a block in which matplotlib has the settings of every picture."""
    from matplotlib import rc_context

    return rc_context(
        {"font.family": _fonts(), "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    )


def _figure(
    panels: int, *, width: float, height: float, heights: Sequence[float] | None = None
) -> tuple["Figure", list["Axes"]]:
    """Returns a figure with panels side by side or, with `heights`, one above the other on one time axis."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.1))
    rows, columns = (panels, 1) if heights else (1, panels)
    ratios = {"height_ratios": list(heights)} if heights else None
    axes = figure.subplots(rows, columns, squeeze=False, sharex=bool(heights), gridspec_kw=ratios)
    return figure, list(axes.flat)


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


@cache
def _fonts() -> list[str]:
    """Returns the fonts of FONTS that are installed; a glyph is taken from the first that has it."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [name for name in FONTS if name in installed]


@cache
def _letters() -> frozenset[int]:
    """Returns the code points that the installed fonts of FONTS can draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = [findfont(FontProperties(family=name)) for name in _fonts()]
    return frozenset(code for path in paths for code in get_font(path).get_charmap())


def _drawable(text: str, position: int) -> str:
    """Returns `text` for a picture, or its number where no installed font has its letters."""
    text = text.replace("▁", " ").strip() or text  # the word mark of SentencePiece
    return text.replace("$", r"\$") if _letters().issuperset(map(ord, text)) else f"#{position + 1}"
