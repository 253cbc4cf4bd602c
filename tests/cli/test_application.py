"""How the command line reads words: text as typed, lists and mappings, old spellings, faults in one line."""

import shlex
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

import mmsr
from mmsr.cli.application import modern
from mmsr.cli.main import application, main

OLD_LINES = [
    line
    for line in Path(__file__).with_name("old_command_lines.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def parsed(*words: str) -> dict[str, Any]:
    """What a command would be called with, a dataclass as its fields."""
    _, bound, _ = application.parse_args(modern(words))
    bound.apply_defaults()
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        flat |= vars(value) if is_dataclass(value) else {name: value}
    return flat


def commands() -> list[tuple[str, ...]]:
    """The words of each command."""
    names = []
    for name, command in application.resolved_commands().items():
        if command.default_command is None:
            inside = (inner for inner in command.resolved_commands() if not inner.startswith("-"))
            names += [(name, inner) for inner in inside]
        elif not name.startswith("-"):
            names.append((name,))
    return names


# ---------------------------------------------------------------------- words


@pytest.mark.parametrize(
    "text",
    ["#pharmacy was so kind", "no", "null", "~", "None", "true", "1.50", "a: b", "[x]", "{a: b}", "[a, b]"]
    + ["- 5 degrees", "-5", "--- well", "!x", "&x", "*x", "a_b", " so ", "café 好", "'quoted'", "a=b", "?"],
)
def test_a_text_arrives_as_it_was_typed(text):
    assert parsed("predict", "--text", text)["text"] == text
    assert parsed("predict", f"--text={text}", "--json")["text"] == text


def test_a_flag_is_no_text(refused):
    assert refused("predict", "--text", "--json").startswith("--text needs a value (one that begins")
    assert parsed("predict", "--text=--json")["text"] == "--json"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "b-c"], ["a", "b-c"]),
        (["[a,b-c]"], ["a", "b-c"]),
        (["[a, b-c]"], ["a", "b-c"]),
        (['["a", "b-c"]'], ["a", "b-c"]),
        (["no", "null"], ["no", "null"]),
        (["[]"], []),
        ([], []),
    ],
)
def test_lists_are_typed_as_words_or_in_brackets(words, expected):
    assert parsed("data", "check", "m.csv", "--labels", *words, "--strict")["labels"] == expected
    if len(words) == 1:
        assert parsed("data", "check", "m.csv", f"--labels={words[0]}")["labels"] == expected


@pytest.mark.parametrize("words", [[".1", "2e-1", "-1"], ["[.1,.2,-1]"]])
def test_lists_of_numbers(words):
    given = parsed("data", "degrade", "m.csv", "--confusions", "c.json", "--wer", *words, "--out", "d")
    assert given["wer"] == [0.1, 0.2, -1.0]


@pytest.mark.parametrize(
    "words",
    [
        ["0=positive", "non-negative=a: b"],
        ["{0: positive, non-negative: a: b}"],
        ['{"0": "positive", "non-negative": "a: b"}'],
        ["{0:", "positive,", "non-negative:", "a: b}"],  # without quotes, as a shell splits it
        ["[0=positive,non-negative=a: b]"],
    ],
)
def test_mappings_are_typed_as_pairs_or_in_braces(words):
    expected = {"0": "positive", "non-negative": "a: b"}
    assert parsed("data", "check", "m.csv", "--label-map", *words)["label_map"] == expected
    assert parsed("predict", "--label_map", *words, "--json")["label_map"] == expected


def test_severities_are_a_mapping_to_lists():
    words = ["my.csv", "--model", "m", "--out", "d", "--severities", "noise=20,0", "codec=gsm"]
    given = parsed("robustness", *words, "--kinds", "noise", "codec")
    assert given["severities"] == {"noise": ["20", "0"], "codec": ["gsm"]}
    assert given["kinds"] == ["noise", "codec"] and given["manifest"] == "my.csv"


def test_split_of_calibrate_is_the_development_split():
    given = parsed("calibrate", "my.csv", "--model", "m", "--split", "held", "--columns", "text=words")
    assert (given["dev_split"], given["columns"]) == ("held", {"text": "words"})


@pytest.mark.parametrize(
    ("command", "hidden"),
    [("calibrate", "--dev-split"), ("faithfulness", "--dev-split"), ("robustness", "--train-split")],
)
def test_settings_without_effect_on_a_command_are_no_flags(command, hidden, refused):
    words = [command, "my.csv", "--model", "m", hidden, "x"]
    line = refused(*words, *([] if command == "calibrate" else ["--out", "d"]))
    assert line.startswith(f"Unknown option: {hidden}")


def test_shares_are_a_mapping_to_numbers(refused):
    split = ["data", "split", "m.csv", "--out", "n.csv", "--by", "speaker", "--shares"]
    assert parsed(*split, "train=.8", "dev=.2")["shares"] == {"train": 0.8, "dev": 0.2}
    assert refused(*split, "train=.8", "dev=few").startswith("--shares few; accepted: float")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (True, False)),
        (["--keep-text", "--no-keep-label"], (False, True)),
        (["--keep_label", "false", "--keep_text", "true"], (False, True)),
        (["--keep-label=false", "--keep-text=true"], (False, True)),
        (["--keep-label", "--no-keep-label"], (False, False)),
    ],
)
def test_switches(words, expected):
    given = parsed("data", "segment", "m.csv", "--out", "s", *words)
    assert (given["keep_label"], given["keep_text"]) == expected


def test_the_last_of_a_repeated_flag_counts():
    assert parsed("predict", "--model", "a", "--model", "b")["model"] == "b"


@pytest.mark.parametrize("line", OLD_LINES)
def test_old_command_lines_are_read(line):
    assert parsed(*shlex.split(line)[1:])


def test_there_are_old_command_lines():
    assert len(OLD_LINES) > 90


def test_underscores_are_read_in_names_alone():
    given = parsed("predict", "my_clip.wav", "--force_label", "a_b", "--text_column=asr_text")
    assert given["inputs"] == ("my_clip.wav",)
    assert (given["force_label"], given["text_column"]) == ("a_b", "asr_text")


def test_what_fit_is_given_stays_as_it_is():
    words = ["-c", "x.yaml", "--data.label_map", "{a: b}", "--model.freeze=[a_b]", "--help_all", "-x", "--no"]
    assert parsed("fit", *words) == {"settings": tuple(words)}


# ---------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("predict a.wav b.wav FOLDER --json", "inputs", ("a.wav", "b.wav", "FOLDER")),
        ("predict --json a.wav --model m b.wav", "inputs", ("a.wav", "b.wav")),
        ("predict --columns text=words -- a.wav", "inputs", ("a.wav",)),
        ("data check --labels a b -- my.csv", "manifest", "my.csv"),
        ("data check my.csv --labels a b", "manifest", "my.csv"),
        ("data check --manifest my.csv", "manifest", "my.csv"),
        ("data convert ~/emodb --from emodb --out d", "source", "~/emodb"),
        ("data features runs/features", "store", "runs/features"),
        ("transcribe my.csv --asr w --out heard.csv", "manifest", "my.csv"),
        ("timeline call.mp3", "audio", "call.mp3"),
        ("timeline -- -call.mp3", "audio", "-call.mp3"),
        ("evaluate my.csv --model m --out d", "manifest", "my.csv"),
        ("calibrate my.csv --model m", "manifest", "my.csv"),
        ("export last.ckpt --out d", "checkpoint", "last.ckpt"),
        ("export last.ckpt --out d --weights int8", "weights", "int8"),
        ("ablate -c fusions.yaml", "config", "fusions.yaml"),
        ("ablate fusions.yaml", "config", "fusions.yaml"),
        ("compare a b --common", "runs", ("a", "b")),
    ],
)
def test_the_main_input_needs_no_flag(words, name, expected):
    assert parsed(*words.split())[name] == expected


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("evaluate --conditions text my.csv --model m --out d", "MANIFEST is required; {} (mmsr"),
        ("transcribe --speakers anna my.csv", "MANIFEST and --asr and --out are required; {}"),
        ("data degrade --wer .1 my.csv", "MANIFEST and --confusions and --out are required; {}"),
        ("data degrade a.csv --wer .1 b.csv --confusions c --out d", "--wer b.csv; accepted: float; {}"),
        ("predict --columns text=words my.csv", "--columns my.csv; accepted: NAME=VALUE; {}"),
        (
            "data check --labels a my.csv",
            "give a manifest or --codes; inputs stand before lists, or after --",
        ),
        ("evaluate --model m --out d", "MANIFEST is required (mmsr evaluate --help)"),
        ("timeline a.wav b.wav", "b.wav: more words than expected (mmsr timeline --help)"),
    ],
)
def test_an_input_that_a_list_took_is_refused_with_the_remedy(words, line, refused):
    remedy = "inputs stand before lists, or after --"
    assert refused(*words.split()).startswith(line.format(remedy))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("predct", 'Unknown command "predct". Did you mean "predict"?'),
        ("data chekc", 'Unknown command "chekc". Did you mean "check"?'),
        ("predict --modle m", "Unknown option: --modle. Did you mean --model? (mmsr predict --help)"),
        (
            "predict --text-column words",
            "--text-column words; accepted: text, asr_text (mmsr predict --help)",
        ),
        ("predict --batch-size 1.5", "--batch-size 1.5; accepted: int (mmsr predict --help)"),
        ("predict --batch-size null", "--batch-size null; accepted: int (mmsr predict --help)"),
        ("predict --abstain-below", "--abstain-below needs a value"),
        ("predict --json=maybe", 'Invalid value for --json: unable to convert "maybe" into bool.'),
        ("predict --columns.text words", "--columns text; accepted: NAME=VALUE (mmsr predict --help)"),
        ("data convert x --out d", "--from is required (mmsr data convert --help)"),
    ],
)
def test_what_is_typed_wrongly_is_told_in_one_line(words, line, refused):
    assert refused(*words.split()).startswith(line)


# ---------------------------------------------------------------------- help, version and exit codes


def run(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `mmsr` in a process of its own, and end with exit code 99 where it imported torch."""
    code = f"import sys\n{before}\nfrom mmsr.cli.main import main\ntry: main()\nfinally:\n"
    code += " if {'torch', 'transformers', 'lightning'} & set(sys.modules): sys.exit(99)\n"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)


def test_help_of_every_command_names_its_flags_and_needs_no_torch(capsys):
    """One process for all: what a command imports for its help stays imported.

    Two commands name what their registries have (metrics, corpora), which needs numpy.
    """
    names = commands()
    assert len(names) > 20 and ("data", "check") in names and ("human", "make") in names
    code = "import sys\nfrom mmsr.cli.main import main\n"
    registries = [("compare",), ("data", "convert")]
    plain = [(), ("data",), *(words for words in names if words not in registries)]
    heavy = {"torch", "transformers"}
    for group, absent in ((plain, heavy | {"numpy"}), (registries, heavy)):
        code += f"for words in {group!r}: print('##', *words); main([*words, '--help'])\n"
        code += f"assert not {absent!r} & set(sys.modules)\n"
    code += "assert 'lightning' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    sections = {part.partition("\n")[0]: part for part in done.stdout.split("## ")[1:]}
    for words in names:
        section = sections[" ".join(words)]
        assert f"Usage: mmsr {' '.join(words)}" in section and "\x1b" not in section
        assert f"mmsr {' '.join(words)}" in section.partition("Example")[2], "its docstring's example"
        arguments = application[words[0]] if len(words) == 1 else application[words[0]][words[1]]
        flat = " ".join(section.replace("│", " ").split())
        for argument in arguments.assemble_argument_collection(parse_docstring=True):
            if argument.children or not argument.parse:  # a dataclass, or a setting that is no flag here
                continue
            assert argument.name in flat, (words, argument.name)
            assert argument.parameter.help, f"{words}: {argument.name} has no help"
            assert "_" not in argument.name
    check = " ".join(sections["timeline"].replace("│", " ").split())
    assert "[choices: auto, inline, beside, link, none] [default: auto]" in check


def test_mmsr_alone_shows_help_and_python_m_is_the_same():
    alone = subprocess.run([sys.executable, "-m", "mmsr"], capture_output=True, text=True, timeout=60)
    asked = run("--help")
    assert alone.returncode == asked.returncode == 0
    assert alone.stdout == asked.stdout and "predict" in alone.stdout


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"mmsr {mmsr.__version__}\n"


def test_an_example_stays_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    main(["data", "split", "--help"])
    example = (
        "Example: mmsr data split my/all.csv --out my/manifest.csv --by speaker --shares train=.8 dev=.2"
    )
    assert example in capsys.readouterr().out.splitlines()


def test_an_interruption_ends_with_130(capsys, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmsr.cli.doctor.examine", interrupt)
    with pytest.raises(SystemExit) as exit_:
        main(["doctor"])
    assert exit_.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("words", ["data check --codes", "predict --help"])
def test_a_closed_pipe_ends_with_141(words):
    command = [sys.executable, "-m", "mmsr", *words.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(60) == 141
    process.stderr.close()
