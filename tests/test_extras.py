"""Optional packages: what is said where one is missing, and that the extra which is named has it."""

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import mmsr
from mmsr import extras

PACKAGE = Path(mmsr.__file__).parent


def test_requirements_are_read_from_the_metadata_of_an_installed_wheel(monkeypatch, tmp_path):
    """As a build writes them; without a pyproject.toml beside the package."""
    lines = ["torch>=2.11", 'peft>=0.21; extra == "lora"', "gradio>=6; extra == 'app'"]
    assert {"train", "report", ""} <= set(extras.requirements()), "in a checkout"
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site" / "mmsr" / "extras.py"))
    monkeypatch.setattr(extras, "requires", lambda name: lines)
    installed = extras.requirements()
    assert {extra: [one.name for one in given] for extra, given in installed.items()} == {
        "": ["torch"],
        "lora": ["peft"],
        "app": ["gradio"],
    }
    assert extras.install("gradio") == "pip install 'mmsr[app]'"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("gradio", "--x needs gradio: pip install 'mmsr[app]'"),
        ("sklearn.linear_model", "--x needs scikit-learn: pip install 'mmsr[report]'"),
        ("yaml", "--x needs pyyaml: pip install 'mmsr[train]'"),
        ("wandb", "--x needs wandb: pip install 'mmsr[loggers]'"),
        ("no_such.module", "--x needs no-such: pip install no-such"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(module, line):
    assert extras.missing("--x", module) == line


def test_an_import_of_a_missing_package_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setitem(sys.modules, "peft.tuners", None)
    for name in ("peft", "peft.tuners"):
        with pytest.raises(RuntimeError, match=r"^lora= needs peft: pip install 'mmsr\[lora\]'$"):
            with extras.needed_for("lora=", raising=RuntimeError):
                __import__(name)
    with pytest.raises(ValueError, match="lora= needs peft"):
        extras.check_installed("lora=", "peft")
    extras.check_installed("all", "torch")


def test_a_module_of_ours_that_is_missing_is_a_bug_and_stays_one():
    with pytest.raises(ModuleNotFoundError, match=r"mmsr\.nothing"), extras.needed_for("x"):
        import mmsr.nothing  # noqa: F401


def imports(path: Path) -> set[str]:
    """The packages that a file imports anywhere but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node not in typing and isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node not in typing and isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names} - {"mmsr", *sys.stdlib_module_names}


def test_what_is_named_for_each_import_is_an_extra_that_has_it(distributions):
    declared = {
        extra: {canonicalize_name(one.name) for one in needed}
        for extra, needed in extras.requirements().items()
    }
    optional = set()
    for name in set().union(*map(imports, PACKAGE.rglob("*.py"))):
        providers = {canonicalize_name(provider) for provider in distributions.get(name, [name])}
        if not providers & declared[""]:
            optional.add(name)
            found = re.fullmatch(r"pip install 'mmsr\[(\w+)\]'", extras.install(name))
            assert found, f"{name} is in no extra, or its package has another name: {extras.install(name)}"
            assert providers & declared[found[1]]
    assert {"lightning", "gradio", "onnxruntime", "ray", "jiwer", "openpyxl"} <= optional
