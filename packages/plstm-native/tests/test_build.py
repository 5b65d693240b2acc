"""Compiling, keeping and loading; and every way in which a machine can have no kernels."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import plstm_native

pytestmark = pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}")
ASK = "import plstm_native; print(plstm_native.unavailable())"
LOAD = "import plstm_native; print(plstm_native.library('float32', 'grid'))"


def run(code, **environment):
    changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], env=changed, capture_output=True, text=True, check=False)


def test_importing_it_brings_nothing_along():
    code = "import sys, plstm_native; sys.exit(str([n for n in ('numpy', 'torch', 'jax') if n in sys.modules] or ''))"
    assert run(code).stderr.strip() == ""


def test_readme_example_runs(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    exec(example, {})
    assert "array" in capsys.readouterr().out


def test_a_library_is_compiled_once_and_closed_to_others(tmp_path):
    folder = tmp_path / "kept"
    for _ in range(2):
        assert run(LOAD, PLSTM_NATIVE_CACHE=str(folder)).returncode == 0
        (kept,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = kept.stat().st_mtime_ns
    run(LOAD, PLSTM_NATIVE_CACHE=str(folder))
    assert kept.stat().st_mtime_ns == before


def test_processes_may_compile_at_once(tmp_path):
    environment = os.environ | {"PLSTM_NATIVE_CACHE": str(tmp_path / "kept")}
    started = [subprocess.Popen([sys.executable, "-c", LOAD], env=environment) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]


def test_it_can_be_switched_off():
    assert run(ASK, PLSTM_NATIVE="0").stdout.strip() == "the environment says PLSTM_NATIVE=0"
    refused = run(LOAD, PLSTM_NATIVE="0")
    assert refused.stderr.strip().endswith("CompilationError: the environment says PLSTM_NATIVE=0")


@pytest.mark.parametrize("change", [{"CC": "no-such-compiler"}, {"CC": None, "PATH": "/nowhere"}])
def test_a_machine_without_a_compiler_says_so(change):
    assert run(ASK, **change).stdout.startswith("there is no C compiler")


def test_what_a_compiler_says_is_handed_on(tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'the compiler is out of order' >&2\nexit 1\n")
    broken.chmod(0o700)
    failed = run(LOAD, CC=str(broken), PLSTM_NATIVE_CACHE=str(tmp_path / "kept"))
    assert "the compiler is out of order" in failed.stderr.splitlines()[-1]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    said = run(ASK, PLSTM_NATIVE_CACHE=str(folder)).stdout
    assert f"others can write to {folder}" in said


def test_without_a_home_the_folder_for_temporary_files_serves(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = run(LOAD, XDG_CACHE_HOME=str(blocked), TMPDIR=str(tmp_path), PLSTM_NATIVE_CACHE=None)
    assert found.returncode == 0, found.stderr
    assert list(tmp_path.glob("plstm_native_*/*.so"))


@pytest.mark.parametrize("options", ["-mno-avx512f", "-mno-avx", "-fno-openmp"])
def test_narrower_vectors_and_one_thread_compile(options, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec cc "$@" {options}\n')
    compiler.chmod(0o700)
    made = run(LOAD, CC=str(compiler), PLSTM_NATIVE_CACHE=str(tmp_path / "kept"))
    assert made.returncode == 0, made.stderr


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="kernels: expected one of graph, grid, sequence, got 'images'"):
        plstm_native.library("float32", "images")
    with pytest.raises(ValueError, match="dtype: expected one of float32, float64, got 'float16'"):
        plstm_native.library("float16", "grid")


def test_handlers_of_xla_need_its_headers(tmp_path):
    with pytest.raises(ValueError, match=f"include: expected a folder that holds xla/ffi/api/c_api.h, got {tmp_path}"):
        plstm_native.xla_handlers("float32", "grid", str(tmp_path))
    with pytest.raises(ValueError, match="dtype: expected one of float32, float64, got 'float16'"):
        plstm_native.xla_handlers("float16", "grid", str(tmp_path))
