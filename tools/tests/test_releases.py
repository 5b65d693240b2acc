"""What a release session lets through, and what it refuses in which words."""

import json
import re
import subprocess
import sys

import pytest

from releasing.__main__ import ROOT
from releasing.artifacts import check_contents
from releasing.workspace import ReleaseError, packages


@pytest.mark.parametrize("name", packages(ROOT))
def test_every_package_may_be_released_as_it_stands(workspace, name, capsys):
    assert workspace.run("check", name) == 0, capsys.readouterr().err
    assert workspace.run("finish", name, "--dry-run") == 0
    assert "is not tagged" in capsys.readouterr().out
    assert workspace.run("check", name) == 0  # nothing was written


def test_what_is_not_committed_is_not_released(workspace, capsys):
    workspace.write("plstm-torch/README.md", "changed")
    assert workspace.run("check", "plstm-torch") == 1
    assert "working tree: expected what is committed, got changes in" in capsys.readouterr().err


def test_a_version_is_released_once(workspace, capsys):
    workspace.release_all()
    assert workspace.run("check", "plstm-jax") == 1
    assert "plstm_jax/version.py: expected above" in capsys.readouterr().err


def test_an_unknown_package_is_told(workspace, capsys):
    assert workspace.run("check", "plstm-tensorflow") == 1
    assert "package: expected one of ['plstm-config'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plstm-torch", "plstm-config"], ids=["its own range", "another's range on it"])
def test_a_range_that_leaves_out_what_stands_here(workspace, capsys, name):
    workspace.edit("plstm-torch/pyproject.toml", '"plstm-config>=0.2,<0.3"', '"plstm-config>=0.1,<0.2"')
    workspace.commit()
    assert workspace.run("check", name) == 1
    message = capsys.readouterr().err
    assert "plstm-torch/pyproject.toml: expected a range of plstm-config that admits" in message
    assert message.strip().endswith("got plstm-config<0.2,>=0.1")


def test_a_change_without_an_entry_in_the_changelog(workspace, capsys):
    workspace.release_all()
    workspace.raise_version("plstm-torch", "0.2.1")
    workspace.commit()
    assert workspace.run("check", "plstm-torch") == 1
    assert "plstm-torch/changes: expected a fragment for each change" in capsys.readouterr().err


def test_a_fragment_of_an_unknown_kind(workspace, capsys):
    workspace.release_all()
    workspace.commit_as("plstm-torch", "0.2.1", "improved", "Faster.")
    assert workspace.run("check", "plstm-torch") == 1
    assert "got '+entry.improved.md'" in capsys.readouterr().err


@pytest.fixture
def renamed(workspace):
    """A field of a config is renamed after everything was tagged."""
    workspace.release_all()
    workspace.edit("plstm-config/src/plstm_config/norms.py", "    eps: float", "    epsilon: float")
    workspace.commit_as("plstm-config", "0.2.1", "changed", "Better names.")
    return workspace


def test_a_renamed_field_needs_an_entry_and_a_version(renamed, capsys):
    assert renamed.run("check", "plstm-config") == 1
    message = capsys.readouterr().err
    assert "public API of plstm-config against 0.2.0: expected an entry under Breaking" in message
    assert "eps: public object was removed" in message
    renamed.announce("plstm-config", "breaking", "The field `eps` of norms is called `epsilon`.")
    renamed.commit()
    assert renamed.run("check", "plstm-config") == 1
    assert "plstm_config/version.py: expected at least 0.3.0" in capsys.readouterr().err
    renamed.raise_version("plstm-config", "0.3.0")
    renamed.commit()
    assert renamed.run("check", "plstm-config") == 1
    assert "expected a range of plstm-config that admits 0.3.0" in capsys.readouterr().err
    for one in packages(renamed.root).values():
        text = (one.folder / "pyproject.toml").read_text()
        (one.folder / "pyproject.toml").write_text(text.replace("plstm-config>=0.2,<0.3", "plstm-config>=0.2,<0.4"))
    renamed.commit()
    assert renamed.run("check", "plstm-config") == 0
    assert "announced as breaking: plstm_config." in capsys.readouterr().out


def test_a_removed_function_is_told(workspace, capsys):
    workspace.release_all()
    workspace.edit("plstm-config/src/plstm_config/sampling.py", "def check_", "def _check_")
    workspace.commit_as("plstm-config", "0.2.1", "fixed", "Something.")
    assert workspace.run("check", "plstm-config") == 1
    message = capsys.readouterr().err
    assert "public API of plstm-config against 0.2.0: expected an entry under Breaking" in message
    assert re.search(r"plstm_config\.sampling\.check_\w+: public object was removed", message)


def add_toy(workspace):
    """A backend with one test, which reads the field that is about to be renamed."""
    toy = "plstm-toy"
    stated = 'name = "plstm-toy"\ndynamic = ["version"]\ndependencies = ["plstm-config>=0.2,<0.3"]\n'
    workspace.write(f"{toy}/pyproject.toml", f"[project]\n{stated}")
    workspace.write(f"{toy}/src/plstm_toy/version.py", '__version__ = "0.2.0"\n')
    workspace.write(f"{toy}/CHANGELOG.md", "# Changelog\n\n## 0.2.0 (2026-01-01)\n\n- All.\n")
    lines = ["import plstm_config", "", "def test_norm():", "    plstm_config.RMSNormConfig(input_dim=4, eps=1e-6)", ""]
    workspace.write(f"{toy}/tests/test_toy.py", "\n".join(lines))
    workspace.commit()


def test_tagged_dependents_are_tried_with_what_is_new(workspace, tmp_path, capsys):
    add_toy(workspace)
    workspace.release_all()
    workspace.edit("plstm-config/src/plstm_config/norms.py", "eps", "epsilon")
    workspace.raise_version("plstm-config", "0.2.1")
    workspace.commit()
    assert workspace.run("plan", "plstm-config", "--out", str(tmp_path)) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    (toy,) = [one["folder"] for one in plan["dependents"] if one["folder"].endswith("plstm-toy")]
    assert "plstm-toy-v0.2.0" in toy
    python = tmp_path / "python"  # what an environment with the new wheel would be
    sources = workspace.package("plstm-config").sources
    python.write_text(f'#!/bin/sh\nPYTHONPATH={sources} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    capsys.readouterr()
    tagged = tmp_path / "sources" / "plstm-toy-v0.2.0"
    command = ["test", "plstm-toy", "--python", str(python), "--against", "the new plstm_config-0.2.1"]
    arguments = [sys.executable, "-m", "releasing", *command, "--root", str(tagged), "--out", str(tmp_path)]
    result = subprocess.run(arguments, cwd=ROOT / "tools", capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "plstm-toy 0.2.0 against the new plstm_config-0.2.1: expected its tests to pass" in result.stderr
    assert "test_toy::test_norm" in result.stderr


def test_dependents_that_do_not_admit_the_version_are_left_out(workspace, tmp_path, capsys):
    workspace.release_all()
    workspace.raise_version("plstm-config", "0.3.0")
    workspace.commit()
    assert workspace.run("plan", "plstm-config", "--out", str(tmp_path)) == 0
    assert json.loads((tmp_path / "plan.json").read_text())["dependents"] == []
    assert "plstm-torch 0.2.0 wants plstm-config<0.3,>=0.2" in capsys.readouterr().out


def test_the_same_siblings_are_tested_once(workspace, tmp_path):
    for release in (lambda: None, workspace.release_all):  # nothing is tagged, or nothing but what stands here
        release()
        assert workspace.run("plan", "plstm-torch", "--out", str(tmp_path)) == 0
        assert list(json.loads((tmp_path / "plan.json").read_text())["siblings"]) == ["newest"]


def test_oldest_and_newest_siblings(workspace, tmp_path):
    workspace.release_all()
    workspace.raise_version("plstm-config", "0.2.1")
    workspace.commit()
    assert workspace.run("plan", "plstm-torch", "--out", str(tmp_path)) == 0
    sets = json.loads((tmp_path / "plan.json").read_text())["siblings"]
    (oldest,) = [folder for folder in sets["oldest"] if folder.endswith("plstm-config")]
    assert "plstm-config-v0.2.0" in oldest
    assert str(workspace.root / "packages" / "plstm-config") in sets["newest"]


def test_the_oldest_siblings_go_together(workspace, tmp_path):
    workspace.release_all()
    workspace.edit("plstm-torch/pyproject.toml", "plstm-config>=0.2,<0.3", "plstm-config>=0.2,<0.4")
    workspace.edit("plstm-torch/pyproject.toml", "plstm-testing>=0.2,<0.3", "plstm-testing>=0.2,<0.4")
    workspace.edit("plstm-testing/pyproject.toml", "plstm-config>=0.2,<0.3", "plstm-config>=0.3,<0.4")
    for name in ("plstm-config", "plstm-testing"):
        workspace.raise_version(name, "0.3.0")
    workspace.commit()
    assert workspace.run("plan", "plstm-torch", "--out", str(tmp_path)) == 0
    oldest = json.loads((tmp_path / "plan.json").read_text())["siblings"]["oldest"]
    assert {"plstm-config-v0.2.0", "plstm-testing-v0.2.0"} <= {folder.split("/")[-3] for folder in oldest}


def test_tagged_dependents_get_siblings_that_the_new_version_admits(workspace, tmp_path):
    workspace.release_all()
    workspace.raise_version("plstm-config", "0.2.1")
    workspace.commit()
    workspace.git("tag", "plstm-config-v0.2.1")
    workspace.edit("plstm-testing/pyproject.toml", "plstm-config>=0.2,<0.3", "plstm-config>=0.2.1,<0.3")
    workspace.raise_version("plstm-testing", "0.2.1")
    workspace.commit()
    assert workspace.run("plan", "plstm-testing", "--out", str(tmp_path)) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    (torch,) = [one for one in plan["dependents"] if one["folder"].endswith("plstm-torch")]
    assert "plstm-torch-v0.2.0" in torch["folder"]
    assert "plstm-config-v0.2.1" in {folder.split("/")[-3] for folder in torch["siblings"]}


def test_a_release_gathers_the_changelog_and_tags(workspace, capsys):
    workspace.release_all()
    workspace.commit_as("plstm-golden", "0.2.1", "added", "Recordings of something new.")
    for setting in ("user.name=a", "user.email=a@b.c"):
        workspace.git("config", *setting.split("="))
    assert workspace.run("check", "plstm-golden") == 0
    assert workspace.run("finish", "plstm-golden") == 0
    assert "tagged plstm-golden-v0.2.1" in capsys.readouterr().out
    text = workspace.package("plstm-golden").changelog.read_text()
    assert text.index("## 0.2.1 (") < text.index("- Recordings of something new.") < text.index("## 0.2.0 (")
    tagged = subprocess.run(["git", "describe", "--exact-match"], cwd=workspace.root, capture_output=True, text=True)
    assert tagged.stdout.strip() == "plstm-golden-v0.2.1"


def test_a_dry_run_that_is_mistyped_is_no_release(workspace, capsys):
    for mistyped in ("--dryrun", "dry-run", "-n"):
        with pytest.raises(SystemExit):
            workspace.run("finish", "plstm-golden", mistyped)
        assert f"arguments: expected none that only pytest knows, got {mistyped}" in capsys.readouterr().err


def test_what_changed_since_the_checks_is_not_released(workspace, capsys):
    assert workspace.run("check", "plstm-golden") == 0
    assert "no version of plstm-golden is tagged here: its API is compared with nothing" in capsys.readouterr().out
    workspace.write("plstm-golden/src/plstm_golden/later.py", "")
    assert workspace.run("finish", "plstm-golden") == 1
    assert "working tree: expected what is committed" in capsys.readouterr().err


def test_a_sibling_that_is_not_what_was_tagged(workspace, capsys):
    workspace.release_all()
    workspace.edit("plstm-config/src/plstm_config/sampling.py", "import", "# more to come\nimport")
    workspace.commit_as("plstm-testing", "0.2.1", "added", "Something.")
    assert workspace.run("check", "plstm-testing") == 1
    message = capsys.readouterr().err
    assert "plstm-config: expected the sources that are tagged as 0.2.0, or a version above it" in message
    assert "sampling.py" in message


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("eps: float = 1e-", "eps: float = 2e-", "Config.eps: the default 1e-05 became 2e-05"),
        ("    eps: float", "    must: int\n    eps: float", "Config.must: a field without a default was added"),
    ],
)
def test_other_defaults_and_new_fields_are_told(workspace, capsys, before, after, said):
    workspace.release_all()
    workspace.edit("plstm-config/src/plstm_config/norms.py", before, after)
    workspace.commit_as("plstm-config", "0.2.1", "changed", "Something.")
    assert workspace.run("check", "plstm-config") == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("+x.added.md", " \n", "got nothing in '+x.added.md'"), ("+x.added.txt", "New.", "got '+x.added.txt'")],
)
def test_fragments_that_would_be_lost(workspace, capsys, name, text, said):
    workspace.write(f"plstm-golden/changes/{name}", text)
    workspace.commit()
    assert workspace.run("check", "plstm-golden") == 1
    assert said in capsys.readouterr().err


def test_distributions_are_built_alike_and_strays_are_refused(workspace, tmp_path, capsys):
    out = tmp_path / "dist"
    assert workspace.run("build", "plstm-golden", "--out", str(out)) == 0, capsys.readouterr().err
    workspace.write("plstm-golden/src/plstm_golden/notes.txt", "stray")
    assert workspace.run("build", "plstm-golden", "--out", str(tmp_path / "again")) == 1
    assert "got plstm_golden/notes.txt" in capsys.readouterr().err
    (workspace.root / "packages/plstm-golden/src/plstm_golden/notes.txt").unlink()
    workspace.write("plstm-golden/secret.txt", "stray")
    assert workspace.run("build", "plstm-golden", "--out", str(tmp_path / "sdist")) == 1
    assert "plstm_golden-0.2.0.tar.gz: expected nothing beside" in capsys.readouterr().err
    (wheel,) = out.glob("*.whl")
    with pytest.raises(ReleaseError, match=r"expected plstm_config/py.typed, got none"):
        check_contents(workspace.package("plstm-config"), wheel)
