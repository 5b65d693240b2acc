import pytest
import torch

from plstm_torch.training.distributed import Share
from plstm_torch.training.order import EpochBatches, epoch_order, load


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own():
    orders = [epoch_order(50, seed, epoch) for seed in range(2) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert epoch_order(50, 0, 1) == orders[1]


@pytest.mark.parametrize("pieces", [1, 2, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_processes_share_each_batch_without_overlap(size, pieces):
    def make_batch(epoch, indices):
        return torch.tensor(list(indices)), torch.full((len(indices),), epoch)

    order = epoch_order(23, 0, 4)
    everyone = [EpochBatches(make_batch, order, 4, 5, Share(rank, size), pieces) for rank in range(size)]
    assert {len(batches) for batches in everyone} == {5}
    for position in range(5):
        expected = order[position * 5 : position * 5 + 5]
        seen = []
        for batches in everyone:
            shares, total = batches[position]
            assert total == len(expected)
            for (values, epochs), own in shares:
                assert len(values) == max(own, 1)
                assert epochs.unique().tolist() == [4]
                seen += values[:own].tolist()
        assert seen == expected
        # all processes take part in each exchange, and none computes for nothing
        (number,) = {len(batches[position][0]) for batches in everyone}
        assert number == min(pieces, -(-len(expected) // size))


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_may_start_and_stop_anywhere(workers):
    batches = EpochBatches(
        lambda epoch, indices: (torch.tensor(list(indices)), torch.zeros(len(indices))),
        list(range(20)),
        0,
        4,
        Share(),
    )
    loaded = [values.tolist() for [((values, _), _)], _ in load(batches, 1, 4, workers)]
    assert loaded == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
