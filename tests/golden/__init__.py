"""What each stage makes of a fixed small input, recorded: a change of code cannot serve stale artifacts.

A stage's digest holds its CODE_VERSION. Where code changes what the stage makes, that number must be raised, or a run finds the
artifact that the old code made. `test_golden` compares each stage's output with the recorded one in `NAME.json`, and

    python -m tests.golden.record NAME

records the new one; it refuses where the output has changed and CODE_VERSION has not. (To record a change twice before it is
committed, take the old file back first: `git checkout tests/golden/NAME.json`.)

The inputs here are made from formulas, not from library functions or other stages: a stage's output changes only with that stage's
code or with a library that it uses, and both make old artifacts stale.
"""
