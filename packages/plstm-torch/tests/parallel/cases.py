"""All cases by name: functions of the world that yield names and errors."""

import sequences
import stacks

CASES = {**sequences.CASES, **stacks.CASES}
