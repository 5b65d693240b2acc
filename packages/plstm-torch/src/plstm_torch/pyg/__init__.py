"""PyTorch Geometric: edges keep their direction, and a list that holds both directions of an edge has to be said so.

    dataset = TUDataset(root, "MUTAG", pre_transform=AddTopology(undirected=True))
    model = FromBatch(plstm_torch.build(pLSTMGraphModelConfig(input_dim=7, edge_input_dim=4, output_dim=2)))
    for batch in DataLoader(dataset, batch_size=64):
        logits = model(batch)

    layer = pLSTMConv(7, 96)                    # edge_index is a DAG: tails in the first row, heads in the second
    layer = pLSTMConv(7, 96, undirected=True)   # every edge leads from its lower to its higher node

    # sampled subgraphs number their nodes anew, seeds first: direct by the numbers of the whole graph
    loader = NeighborLoader(data, [10, 10], transform=AddTopology(undirected=True, order="n_id"))

A transform, batches, and layers with the signatures that PyTorch Geometric's users know. The extra `plstm-torch[pyg]`
installs it. Nothing else in this package imports it.
"""

from plstm_torch.pyg.conv import pLSTMConv
from plstm_torch.pyg.topologies import AddTopology, FromBatch, batch_topology, directed_topology

__all__ = ["AddTopology", "FromBatch", "batch_topology", "directed_topology", "pLSTMConv"]
