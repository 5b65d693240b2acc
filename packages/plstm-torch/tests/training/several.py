"""Runs some command lines one after the other in each of the processes that torchrun starts."""

import json
import sys

from plstm_torch.cli import app

for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as stop:
        if stop.code:
            raise
