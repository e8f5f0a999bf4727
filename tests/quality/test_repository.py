"""Files of the repository: workflows, issue forms, the container image, the service of systemd."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyllama.cli import COMMANDS, command_parser

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]
OURS = [*(ROOT / ".github").rglob("*.*"), *(ROOT / "deploy").glob("*"), ROOT / "CODE_OF_CONDUCT.md",
        ROOT / "docs/dev/release.md"]  # fmt: skip
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
KINDS = {"textarea", "input", "dropdown", "checkboxes", "markdown"}


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # every value is a text; so is the key "on"


def parses(words: list[str]) -> None:
    """Check a command line of the program; the parser exits if it is wrong."""
    program, name, *rest = words
    assert Path(program).name == "cyllama" and name in COMMANDS
    command_parser(name).parse_args(rest)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow.keys() >= {"name", "on", "permissions", "jobs"}
    for name, job in workflow["jobs"].items():
        assert job.keys() >= {"runs-on", "steps"} and set(job.get("needs", "").split()) <= workflow["jobs"].keys(), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v[\d.]+", step.get("uses", "a/b@v1"))
            code = re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", ""))
            subprocess.run(["bash", "-n", "-c", code], check=True)
            assert set(re.findall(r"\bmake ([\w-]+)", code)) <= targets()
        used = set(re.findall(r"\$\{\{ matrix\.(\w+)", yaml.safe_dump(job)))
        matrix = job.get("strategy", {}).get("matrix", {})
        for row in matrix.get("include", [matrix]):
            assert used <= row.keys()


def test_wheels_are_built_for_every_platform() -> None:
    (workflow,) = (read_yaml(path) for path in WORKFLOWS if path.name == "wheels.yml")
    rows = workflow["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    assert {row["name"] for row in rows} == {"linux-x86_64", "linux-aarch64", "macos-arm64", "windows-amd64"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    for command in settings["test-command"].split(" && "):
        parses(shlex.split(command))
    variables = {word for row in rows for word in re.findall(r"CYLLAMA_\w+", str(workflow["jobs"]["wheels"]["steps"]))}
    documented = (ROOT / "docs/howto/install.md").read_text()
    assert variables and all(f"`{name}`" in documented for name in variables)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_valid(path: Path) -> None:
    form = read_yaml(path)
    assert form.keys() >= {"name", "description", "body"}
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names) and {field["type"] for field in form["body"]} <= KINDS
    assert all(field["attributes"]["label"] for field in form["body"])


def test_container_image_is_valid() -> None:
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy/Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert {line.split()[0] for line in lines} <= INSTRUCTIONS
    assert len([line for line in lines if line.startswith("FROM ")]) == 2 and "USER 10001" in lines
    for line in lines:
        if line.startswith("RUN "):
            code = re.sub(r"--mount=\S+", "", line.removeprefix("RUN "))
            subprocess.run(["sh", "-n", "-c", code], check=True)
    entry, default = (next(yaml.safe_load(line.split(" ", 1)[1]) for line in lines if line.startswith(word))
                      for word in ("ENTRYPOINT", "CMD"))  # fmt: skip
    parses([*entry, *default])
    extras = set(next(re.findall(r"\.\[([\w,]+)\]", line) for line in lines if "pip wheel" in line)[0].split(","))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras <= project["optional-dependencies"].keys()


def test_service_is_valid(tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "deploy/cyllama.service")
    assert unit.sections() == ["Unit", "Service", "Install"]
    command = unit["Service"]["ExecStart"]
    parses(shlex.split(command))
    program = shutil.which("systemd-analyze")
    if program:
        copy = tmp_path / "cyllama.service"
        text = (ROOT / "deploy/cyllama.service").read_text().replace(command.split()[0], "/bin/true")
        copy.write_text(text)
        done = subprocess.run([program, "verify", copy], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stderr == ""


def test_release_guide_names_existing_commands() -> None:
    text = (ROOT / "docs/dev/release.md").read_text()
    assert set(re.findall(r"\bmake ([\w-]+)", text)) <= targets()
    assert set(re.findall(r"`cyllama (\w+)", text)) <= COMMANDS.keys()


def test_no_package_registry_is_named() -> None:
    hosts = re.compile(r"pypi|pythonhosted|npmjs|crates\.io|rubygems|ghcr\.io|anaconda", re.IGNORECASE)
    assert [path.name for path in OURS if path.is_file() and hosts.search(path.read_text())] == []
