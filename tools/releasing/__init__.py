"""Releases of the workspace's packages, each on its own: what is checked, built, compared, written and tagged.

Nothing is uploaded. `nox -s "release(plstm-torch)"` runs the whole; the commands of this module are its steps.
"""
