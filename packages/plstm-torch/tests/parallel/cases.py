"""All cases by name: functions of the world that yield names and errors."""

import data_parallel
import grids
import sequences
import stacks

CASES = {**sequences.CASES, **grids.CASES, **stacks.CASES, **data_parallel.CASES}
