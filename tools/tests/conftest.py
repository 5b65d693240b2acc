"""Workspaces to try releases in: clones of this one, with tags of their own."""

import os
import subprocess

import pytest

from releasing import changelog
from releasing.__main__ import ROOT, main
from releasing.workspace import packages

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b.c",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b.c",
}


class Workspace:
    """A clone that is edited, committed and tagged."""

    def __init__(self, root):
        self.root = root

    def git(self, *arguments):
        environment = {**os.environ, **IDENTITY}
        subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, env=environment)

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "--message", "A change")

    def package(self, name):
        return packages(self.root)[name]

    def edit(self, path, before, after):
        place = self.root / "packages" / path
        text = place.read_text(encoding="utf-8")
        assert before in text, f"{path} has no {before!r}: the test needs another example"
        place.write_text(text.replace(before, after), encoding="utf-8")

    def write(self, path, text):
        place = self.root / "packages" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def announce(self, package, kind, text):
        self.write(f"{package}/changes/+entry.{kind}.md", text + "\n")

    def raise_version(self, package, version):
        one = self.package(package)
        self.edit(f"{package}/src/{one.module}/version.py", f'"{one.version}"', f'"{version}"')

    def commit_as(self, package, version, kind, text):
        """Commit what was edited as a version of a package that waits for its release."""
        self.raise_version(package, version)
        self.announce(package, kind, text)
        self.commit()

    def release_all(self):
        """Tags of every package as it stands, as if a maintainer had released them."""
        for one in packages(self.root).values():
            self.git("tag", one.tag)

    def run(self, *arguments):
        return main([*arguments, "--root", str(self.root)])


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "workspace"
    subprocess.run(["git", "clone", "--quiet", "--no-tags", str(ROOT), str(root)], check=True)
    found = Workspace(root)
    for one in packages(root).values():  # what waits for the next version of the real packages is not what is tried
        for name in changelog.fragments(one):
            (one.folder / "changes" / name).unlink()
        if changelog.section(one) is None:
            text = one.changelog.read_text(encoding="utf-8")
            one.changelog.write_text(f"{text}\n## {one.version} (2026-01-01)\n\n- All.\n", encoding="utf-8")
    found.commit()
    return found
