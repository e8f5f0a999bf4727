"""scripts/engines with git repositories made by the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sources.small_engine import MAIN_C, Place, Repository, sha256

Sentence = Callable[[], str]


def move(place: Place, repository: Repository, ref: str, *more: str) -> int:
    return place.update("--git", str(repository.folder), "--ref", ref, *more)


def test_records_commit_of_tag(place: Place, repository: Repository) -> None:
    assert move(place, repository, "v1.0") == 0
    engine = place.engine()
    assert (engine.origin, engine.url, engine.commit) == ("git", str(repository.folder), repository.first)
    assert (engine.upstream_version, engine.ggml, engine.tree) == ("1.0", "0.7.3", "")
    assert place.read("src/main.c") == MAIN_C
    assert not (place.tree / "docs").exists() and not (place.tree / ".git").exists()
    assert place.run("--check", "eng") == 0


@pytest.mark.parametrize("form", ["branch", "full", "short"])
def test_records_commit_of_branch_and_commit(form: str, place: Place, repository: Repository) -> None:
    ref = {"branch": "next", "full": repository.second, "short": repository.second[:10]}[form]
    assert move(place, repository, ref) == 0
    assert (place.engine().commit, place.engine().upstream_version) == (repository.second, "2.0.0")
    assert place.read("src/main.c").startswith("zero\n")


def test_moves_within_the_recorded_repository(place: Place, repository: Repository) -> None:
    assert move(place, repository, "v1.0") == 0
    assert place.update("--ref", "next") == 0
    assert place.engine().commit == repository.second


def test_relative_url_starts_at_the_lock(place: Place, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    assert place.update("--git", "repository", "--ref", "v1.0") == 0
    assert place.engine().url == "../repository"
    monkeypatch.chdir(place.links)
    shutil.rmtree(place.tree)
    shutil.rmtree(place.cache)
    assert place.run("eng") == 0


def test_excludes_changes_that_are_not_committed(place: Place, repository: Repository) -> None:
    (repository.folder / "src" / "main.c").write_text("changed\n")
    (repository.folder / "untracked.c").write_text("new\n")
    assert move(place, repository, "main") == 0
    assert place.read("src/main.c") == MAIN_C
    assert not (place.tree / "untracked.c").exists()


def test_ignores_git_attributes(place: Place, repository: Repository) -> None:
    files = {".gitattributes": "*.c export-ignore\n*.h text eol=crlf\nid.txt export-subst ident\n"}
    repository.commit({**files, "a.h": "one\n", "id.txt": "$Format:%H$ $Id$\n"})
    assert move(place, repository, "main") == 0
    assert (place.tree / "a.h").read_bytes() == b"one\n"
    assert place.read("id.txt") == "$Format:%H$ $Id$\n" and place.read("src/main.c") == MAIN_C


def test_fetches_all_branches_if_the_server_rejects_commits(
    place: Place, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (key, value) in enumerate({"protocol.version": "0"}.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    repository.git("checkout", "--quiet", "next")
    repository.commit({"src/main.c": "later\n"})  # so that the commit is not the end of a branch
    assert move(place, repository, repository.second) == 0
    assert place.read("src/main.c") == "zero\n" + MAIN_C


def test_second_installation_uses_the_cache(place: Place, repository: Repository) -> None:
    assert move(place, repository, "v1.0") == 0
    shutil.rmtree(repository.folder)
    shutil.rmtree(place.tree)
    assert place.run("eng") == 0
    assert place.run("--check", "eng") == 0


def test_skip_does_not_change_the_hash(place: Place, repository: Repository) -> None:
    assert move(place, repository, "v1.0") == 0
    place.lock.write_text(place.lock.read_text().replace('["docs"]', '["docs", "src/same.c", "none"]'))
    assert place.run("eng") == 0
    assert not (place.tree / "src" / "same.c").exists() and place.read("src/main.c") == MAIN_C


def test_rejects_wrong_tree_hash(place: Place, repository: Repository, sentence: Sentence) -> None:
    assert move(place, repository, "v1.0") == 0
    place.lock.write_text(
        place.lock.read_text().replace(f'commit = "{repository.first}"', f'commit = "{repository.second}"')
    )
    before, cached = place.state(), place.cached()
    assert place.run("eng") == 1
    assert place.engine().sha256 in (text := sentence()) and repository.second in text
    assert (place.state(), place.cached()) == (before, cached)


def test_rejects_patch_that_does_not_apply(place: Place, repository: Repository, sentence: Sentence) -> None:
    place.patch()
    assert place.run("eng") == 0
    repository.commit({"src/main.c": MAIN_C.replace("two", "deux")})
    before = place.state()
    assert move(place, repository, "main") == 1
    assert "01-two.patch" in sentence()
    assert place.state() == before
    assert place.run("--check", "eng") == 0


def test_rejects_unknown_ref_commit_and_repository(place: Place, repository: Repository, sentence: Sentence) -> None:
    before, cached = place.state(), place.cached()
    for ref in ("none", "abcdef0", "a" * 40):
        assert move(place, repository, ref) == 1
        assert ref in (text := sentence()) and str(repository.folder) in text
    assert place.update("--git", str(place.folder / "nothing"), "--ref", "main") == 1
    assert str(place.folder / "nothing") in sentence()
    assert place.update("--git", str(place.folder / "nothing"), "--ref", "a" * 40) == 1
    assert str(place.folder / "nothing") in sentence()
    assert (place.state(), place.cached()) == (before, cached)


def test_names_missing_git(place: Place, sentence: Sentence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place.folder))
    before = place.state()
    for ref in ("main", "a" * 40):
        assert place.update("--git", "x", "--ref", ref) == 1
        assert "git is missing" in sentence()
    assert place.state() == before


def test_calls_from_a_hook_do_not_change_its_repository(
    place: Place, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "mine")], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "mine" / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "mine" / ".git" / "objects"))
    before = sorted(os.walk(tmp_path / "mine"))
    assert move(place, repository, "v1.0") == 0
    assert sorted(os.walk(tmp_path / "mine")) == before


def test_adds_named_submodules_alone(place: Place, repository: Repository, tmp_path: Path, sentence: Sentence) -> None:
    for name in ("needed", "other"):
        Repository(tmp_path / "subs" / name).commit({"own.c": name})
        repository.git("submodule", "--quiet", "add", f"../subs/{name}", f"deps/{name}")
    commit = repository.commit({})
    assert move(place, repository, commit) == 0
    assert not list((place.tree / "deps").glob("*/*"))
    plain = place.engine().sha256
    assert move(place, repository, commit, "--submodules", "deps/needed") == 0
    assert place.read("deps/needed/own.c") == "needed" and not (place.tree / "deps" / "other" / "own.c").exists()
    engine = place.engine()
    assert engine.submodules == ("deps/needed",) and engine.sha256 != plain
    shutil.rmtree(place.tree)
    assert place.run("eng") == 0
    before = place.state()
    assert move(place, repository, commit, "--submodules", "src") == 1
    assert "'src'" in sentence()
    assert place.state() == before


def test_executable_files_and_links_are_kept(place: Place, repository: Repository) -> None:
    (repository.folder / "run.sh").write_text("run")
    (repository.folder / "run.sh").chmod(0o755)
    (repository.folder / "link").symlink_to("src/main.c")
    repository.commit({})
    assert move(place, repository, "main") == 0
    assert os.access(place.tree / "run.sh", os.X_OK) and not os.access(place.tree / "old.txt", os.X_OK)
    assert os.readlink(place.tree / "link") == "src/main.c"
    assert sha256(place.tree / "link") == sha256(place.tree / "src" / "main.c")
