"""The structure that the design draws, checked."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "filters", "tokenizer_cache", "trainer", "jobs")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LIGHT = [*ROOT.glob("*/settings.py"), *ROOT.glob("*/*/settings.py"), ROOT / "jobs" / "stages.py"]


def test_imports_go_one_way():
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_and_stages_load_no_heavy_library(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    code = (
        f"import sys, {module}\n"
        "sys.exit(' '.join({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_owns_the_name_of_a_folder(package):
    assert set(packages_distributions().get(package, [])) <= {"anymix"}


def test_files_and_functions_are_short_enough_to_read():
    long = []
    for path in FILES:
        text = path.read_text()
        if text.count("\n") > 400:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                length = node.end_lineno - node.lineno
                # The list of steps is one expression that reads like the diagram of the flow.
                if (path.name, node.name) != ("stages.py", "steps"):
                    long.append(f"{path.relative_to(ROOT)}:{node.name}: {length} lines")
    assert not long


def test_every_requirement_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements" / "base.txt").read_text().splitlines()
    }
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {
        requirement.split("=")[0].split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        for requirement in wanted
    }
    assert names <= pins


def test_no_pin_names_a_registry():
    for path in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text()
        assert all("==" in line for line in path.read_text().splitlines())
