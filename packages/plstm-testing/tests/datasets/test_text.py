import numpy as np
import pytest

from plstm_testing.datasets.errors import DatasetError
from plstm_testing.datasets.text import evaluation_streams, load_text, training_windows, windows_per_epoch


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(i % 251 for i in range(1000)))
    return load_text(path, context_length=16, held_out=0.1)


def test_head_and_tail_are_the_file(text):
    assert len(text.head) == 900
    assert len(text.tail) == 100
    assert bytes(np.concatenate([text.head, text.tail]).tolist()) == bytes(i % 251 for i in range(1000))


def test_windows_tile_the_head_from_another_offset_in_each_epoch(text):
    number = windows_per_epoch(len(text.head), 16)
    assert number == 55
    starts = set()
    for epoch in range(5):
        inputs, targets = training_windows(text.head, range(number), context_length=16, seed=0, epoch=epoch)
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        assert np.array_equal(inputs[1:, 0], targets[:-1, -1])
        assert inputs.dtype == np.int64
        starts.add(int(inputs[0, 0]))
    assert len(starts) > 2


@pytest.mark.parametrize("length", range(17, 60))
def test_windows_never_leave_the_head(length):
    head = np.arange(length, dtype=np.uint8)
    for epoch in range(8):
        number = windows_per_epoch(length, 16)
        _, targets = training_windows(head, range(number), context_length=16, seed=1, epoch=epoch)
        assert targets.shape == (number, 16)
        assert int(targets.max()) < length


@pytest.mark.parametrize("streams", [1, 3, 7, 200])
@pytest.mark.parametrize("warm_up", [1, 16, 5000])
def test_every_byte_of_the_tail_is_predicted_once_and_after_its_own_past(text, streams, warm_up):
    rows = evaluation_streams(text, streams=streams, warm_up=warm_up)
    assert not rows.counts[:, 0].any()
    assert rows.values[rows.counts].tolist() == text.tail.tolist()
    everything = np.concatenate([text.head, text.tail]).tolist()
    start = 0
    for values, counts in zip(rows.values, rows.counts, strict=True):
        counted = values[counts].tolist()
        if counted:
            before = values[: int(counts.argmax())].tolist()
            position = len(text.head) + start
            assert everything[position - len(before) : position] == before
        start += len(counted)


def test_bad_files_are_named(tmp_path):
    missing, short = tmp_path / "none.txt", tmp_path / "short.txt"
    short.write_bytes(b"ten bytes!")
    with pytest.raises(DatasetError, match=r"cannot read .*none.txt: No such file or directory"):
        load_text(missing, context_length=16, held_out=0.1)
    with pytest.raises(DatasetError, match=r"cannot read .*: Is a directory"):
        load_text(tmp_path, context_length=16, held_out=0.1)
    with pytest.raises(DatasetError, match=r"short.txt has 10 bytes, which leaves 9 .* context length of 16 .* 17"):
        load_text(short, context_length=16, held_out=0.1)
