"""Runs the python blocks of the pages: those of a page share their names, in a folder of its own."""

import os
import tempfile

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def pytest_configure(config):
    # PyTorch Geometric calls it while it is imported
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script`:DeprecationWarning")


def enter(namespace):
    namespace["_folder"] = tempfile.TemporaryDirectory()
    namespace["_before"] = os.getcwd()
    os.chdir(namespace["_folder"].name)


def leave(namespace):
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"], setup=enter, teardown=leave).pytest()
