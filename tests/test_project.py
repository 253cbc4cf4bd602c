"""The project as a whole: its pins agree, its imports run one way, and it starts light."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [
    requirement
    for lines in PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, lines)
    if requirement.name != PROJECT["name"]
]

# conda-forge's name for a package, where it differs from the one on the Python package index.
PYPI_NAMES = {"pytorch-gpu": "torch"}

MODULES = sorted((ROOT / "mmsr").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.yaml"))
ABLATIONS = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100
    )


def committed_files() -> list[Path]:
    """Tracked files, and those that the next commit could add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, lazily or for type checking too."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                file = ROOT / name.replace(".", "/")
                yield name if file.is_dir() or file.with_suffix(".py").is_file() else source


def has_lower_bound(requirement: Requirement) -> bool:
    return any(specifier.operator in (">=", "==", "~=") for specifier in requirement.specifier)


@pytest.mark.parametrize("requirement", CORE + EXTRAS, ids=str)
def test_every_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    assert has_lower_bound(requirement), f"{requirement} names no lowest version"


def test_each_package_is_pinned_once() -> None:
    names = [canonicalize_name(requirement.name) for requirement in CORE + EXTRAS]
    assert sorted(names) == sorted(set(names))


def test_all_is_every_extra_of_a_user() -> None:
    extras = PROJECT["optional-dependencies"]

    def reached(name: str) -> set[str]:
        own = [Requirement(line) for line in extras[name]]
        inner = {
            extra
            for requirement in own
            if requirement.name == PROJECT["name"]
            for extra in requirement.extras
        }
        return inner.union(*map(reached, inner))

    assert reached("all") | {"all", "dev", "docs", "notebooks"} == set(extras)
    assert not reached("all") & {"dev", "docs", "notebooks"}
    assert reached("dev") | {"dev", "docs"} == set(extras), "make setup installs .[all,dev]"


def test_the_workflow_runs_what_is_there() -> None:
    """On the Pythons that the conda environment allows, by the script of continuous integration."""
    path = ROOT / ".github" / "workflows" / "ci.yml"
    job = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["ci"]
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    python = next(line for line in dependencies if isinstance(line, str) and line.startswith("python "))
    pythons = job["strategy"]["matrix"]["python"]
    allowed = SpecifierSet(python.partition(" ")[2])
    assert pythons == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands and all((ROOT / command.split()[0]).is_file() for command in commands)


def test_forms_of_issues_are_what_github_reads() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "config", "feature", "question"]
    for form in forms:
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.stem == "config":
            assert content == {"blank_issues_enabled": False}
            continue
        assert {"name", "description", "body"} <= set(content)
        fields = [field for field in content["body"] if field["type"] != "markdown"]
        assert fields and len({field["id"] for field in fields}) == len(fields)
        assert all(field["type"] in ("input", "textarea", "dropdown", "checkboxes") for field in fields)
        assert all("label" in field["attributes"] for field in fields)


def test_conda_environment_has_the_pins_of_the_project() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip_lines = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip_lines == ["-e .[all]"]

    pins = {canonicalize_name(requirement.name): requirement.specifier for requirement in CORE + EXTRAS}
    conda = dict((line.split(maxsplit=1) + [""])[:2] for line in dependencies if isinstance(line, str))
    del conda["pip"]
    python = SpecifierSet(conda.pop("python"))
    assert conda, "the conda environment names no package of the project"
    for name, pin in conda.items():
        assert SpecifierSet(pin) == pins[PYPI_NAMES.get(name, name)], f"{name}: pyproject.toml differs"

    supported = SpecifierSet(PROJECT["requires-python"])
    allowed = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in python]
    assert allowed and all(version in supported for version in allowed)


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert [reference["url"] for reference in citation["references"]] == ["https://arxiv.org/abs/2407.21054"]
    assert (citation["version"], citation["license"]) == (
        PROJECT["version"],
        PROJECT["license"].partition(" AND ")[0],  # of the software; the others are of data in it
    )


def test_no_committed_file_names_a_machine_or_a_registry() -> None:
    # Written in pieces, so that this file does not name them itself.
    folders = "|".join(["work", "root", "Users/[a-z]+", "home/[a-z]+", "tmp/" + "venv"])
    indexes = "|".join(["pypi.org" + "/simple", "--(?:extra-)?index" + "-url", "--find" + "-links"])
    forbidden = re.compile(rf"(?<![\w.}}/-])/(?:{folders})\b|{indexes}".encode())
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in committed_files()
        for match in forbidden.finditer(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_imported_package_is_a_declared_dependency(
    path: Path, distributions: Mapping[str, list[str]]
) -> None:
    declared = {canonicalize_name(requirement.name) for requirement in CORE + EXTRAS}
    for name in {module.partition(".")[0] for module in imported_modules(path)}:
        if name != "mmsr" and name not in sys.stdlib_module_names:
            providers = {canonicalize_name(provider) for provider in distributions.get(name, [name])}
            assert providers & declared, f"{name} is imported, yet no declared dependency provides it"


def test_help_leaves_torch_alone() -> None:
    code = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from mmsr.cli.main import main
sys.argv = ["mmsr", "--help"]
main()
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "Usage: mmsr" in done.stdout
    assert done.stderr.splitlines() == ["False"]


@pytest.mark.slow
def test_training_leaves_peft_alone() -> None:
    """It is slow to import, and bitsandbytes, which it brings, warns of a kernel that nothing here needs."""
    pytest.importorskip("lightning")
    done = run_python("import sys, mmsr.ablation.ablate; print({'peft', 'bitsandbytes'} & set(sys.modules))")
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def test_prediction_needs_no_extra() -> None:
    code = """
import importlib, pkgutil, sys
absent = "lightning pytorch_lightning librosa timm torchaudio torchvision sklearn matplotlib espeakng_loader"
sys.modules.update(dict.fromkeys(absent.split()))
import mmsr.cli.main, mmsr.data.audio.decoding, mmsr.data.manifest.manifest, mmsr.model
for module in pkgutil.walk_packages(mmsr.model.__path__, "mmsr.model."):
    importlib.import_module(module.name)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_there_are_experiments() -> None:
    assert ROOT / "experiments" / "demo.yaml" in EXPERIMENTS


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_experiment_parses(path: Path) -> None:
    experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(experiment, dict) and experiment, f"{path.name} holds no settings"


def test_there_are_ablations() -> None:
    assert ROOT / "experiments" / "ablations" / "fusions.yaml" in ABLATIONS


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.name)
@pytest.mark.slow
def test_ablation_expands_to_what_fit_accepts(path: Path) -> None:
    pytest.importorskip("lightning")
    from mmsr.ablation.plan import resolved
    from mmsr.ablation.spec import read_ablation

    ablation = read_ablation(path)
    settings = [resolved(variant) for variant in ablation.variants.values()]
    assert len(settings) == len({str(one) for one in settings}) > 1
    assert len(ablation.seeds) >= 3, "without three seeds nothing is known of their spread"


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("required", "1 error")])
@pytest.mark.slow
def test_where_a_browser_is_required_its_absence_fails(tmp_path: Path, required: str, outcome: str) -> None:
    pytest.importorskip("playwright", reason="a browser is driven by playwright: pip install 'mmsr[dev]'")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "tests/test_docs.py"]
    command += ["-k", "words_stay and flow"]
    environment = {**os.environ, "PATH": str(tmp_path), "MMSR_BROWSER": required}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert outcome in done.stdout and "no browser on PATH" in done.stdout
