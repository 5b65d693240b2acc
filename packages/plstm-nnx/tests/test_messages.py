"""Errors speak one dialect: `name: expected ..., got ...`."""

from plstm_testing.conformance import messages


def test_every_message_of_the_sources():
    assert messages.run("plstm_nnx", {}) == []
