import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plstm_testing.datasets import DatasetError, load_tu_dataset, tu_download

FILES = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n3, 2\n1, 1\n4, 5\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n3\n",
    "graph_labels": "7\n-1\n7\n",
    "node_labels": "2\n4\n2\n3\n3\n2\n",
    "node_attributes": "0.5, 1\n1, 1\n2, 1\n3, 1\n4, 1\n5, 1\n",
    "edge_labels": "0\n0\n1\n1\n0\n1\n1\n1\n",
}


def write(folder, files, name="TOY"):
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for part, text in files.items():
        (raw / f"{name}_{part}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_text_files_become_graphs(tmp_path):
    data = load_tu_dataset("TOY", write(tmp_path, FILES))
    assert (len(data.graphs), data.node_dim, data.edge_dim, data.num_classes) == (3, 5, 2, 2)
    assert data.labels.tolist() == [1, 0, 1]
    first, second, third = data.graphs
    assert first.x.tolist() == [[0.5, 1, 1, 0, 0], [1, 1, 0, 0, 1], [2, 1, 1, 0, 0]]
    assert first.topology.edges.tolist() == [[0, 1], [1, 2]]
    # sorted by tail and head; the self loop is gone, and the repeated edge has the sum of its features
    assert first.edge_attr.tolist() == [[1, 0], [1, 0], [0, 1], [1, 1]]
    assert second.topology.edges.tolist() == [[0, 1]]
    assert (third.topology.num_nodes, len(third.topology.edges), third.edge_attr.shape) == (1, 0, (0, 2))
    batch, labels = data.batch([2, 0])
    assert batch.x.shape == (4, 5)
    assert batch.edge_attr.shape == (4, 2)
    assert labels.tolist() == [1, 1]
    assert batch.x.dtype == batch.edge_attr.dtype == np.float32


def test_nodes_without_features_have_a_constant(tmp_path):
    few = {part: FILES[part] for part in ("A", "graph_indicator", "graph_labels")}
    data = load_tu_dataset("TOY", write(tmp_path, few))
    assert (data.node_dim, data.edge_dim) == (1, 0)
    assert all((graph.x == 1).all() and graph.edge_attr is None for graph in data.graphs)


def test_the_digest_tells_whether_anything_changed(tmp_path):
    digest = load_tu_dataset("TOY", write(tmp_path / "a", FILES)).digest
    assert load_tu_dataset("TOY", write(tmp_path / "b", FILES)).digest == digest
    for number, part in enumerate(FILES):
        changed = {**FILES, part: FILES[part].replace("2", "3", 1) if part == "A" else FILES[part] + "\n"}
        assert load_tu_dataset("TOY", write(tmp_path / str(number), changed)).digest != digest


def test_nothing_is_ever_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "code ran"), "w"))

    root = write(tmp_path, FILES)
    for folder in (root / "TOY" / "processed", root / "TOY", root / "TOY" / "raw"):
        folder.mkdir(exist_ok=True)
        for name in ("data.pt", "pre_transform.pt", "TOY.npy", "TOY.pkl"):
            (folder / name).write_bytes(pickle.dumps(Evil()))
    load_tu_dataset("TOY", root)
    write(root, {**FILES, "A": pickle.dumps(Evil())}, name="EVIL")
    with pytest.raises(DatasetError, match=r"EVIL_A.txt: expected lines of numbers"):
        load_tu_dataset("EVIL", root)
    assert not (tmp_path / "code ran").exists()


@pytest.mark.parametrize("name", ["../TOY", "/etc/passwd", "", ".", "a b", "T\n", None, 3, ["TOY"], "x" * 101])
def test_a_name_cannot_leave_the_root(tmp_path, name):
    with pytest.raises(DatasetError, match=r"^dataset: expected a name of letters"):
        load_tu_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("A", "1, 2\n2, x\n", "TOY_A.txt: expected lines of numbers"),
        ("A", "", "TOY_A.txt: expected lines of numbers, got an empty file"),
        ("A", "1, 2\n3\n", "TOY_A.txt: expected lines of numbers"),
        ("A", "1, 2, 3\n", r"A: expected pairs of nodes from 1 to 6"),
        ("A", "0, 1\n", "A: expected pairs of nodes from 1 to 6"),
        ("A", "1, 7\n", "A: expected pairs of nodes from 1 to 6"),
        ("A", "1, 4\n", "A: expected edges within one graph"),
        ("A", b"\xff\xfe", "TOY_A.txt: expected lines of numbers, got bytes that are no text"),
        ("A", "1, 99999999999999999999\n", "TOY_A.txt: expected lines of numbers"),
        ("graph_indicator", "2\n1\n1\n2\n2\n3\n", "graph_indicator: expected graphs from 1 to 3 in order"),
        ("graph_indicator", "1\n1\n1\n2\n2\n4\n", "graph_indicator: expected graphs from 1 to 3 in order"),
        ("graph_labels", "7, 1\n1, 1\n7, 2\n", "graph_labels: expected one class in a line, got 2"),
        ("node_labels", "1\n", "node_labels: expected 6 lines, got 1"),
        ("node_labels", "1\n1\n1\n1\n1\n99999999\n", "node_labels: expected at most 65536 labels"),
        ("node_attributes", "nan\n" * 6, "TOY_node_attributes.txt: expected lines of numbers, got an infinity or NaN"),
    ],
)
def test_damaged_files_are_named(tmp_path, part, text, message):
    with pytest.raises(DatasetError, match=message):
        load_tu_dataset("TOY", write(tmp_path, {**FILES, part: text}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(FILES)), st.integers(0, 60), st.binary(max_size=4), st.booleans())
def test_any_damage_is_an_error_of_the_data_or_none(tmp_path_factory, part, place, inserted, cut):
    text = FILES[part].encode()
    damaged = text[:place] + inserted + (b"" if cut else text[place:])
    root = write(tmp_path_factory.mktemp("tu"), {**FILES, part: damaged})
    said = ""
    try:
        data = load_tu_dataset("TOY", root)
        assert all(np.isfinite(graph.x).all() for graph in data.graphs)
    except DatasetError as error:
        said = str(error)
    assert "\n" not in said


def archive(files, name="TOY"):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        for part, text in files.items():
            out.writestr(part if "." in part else f"{name}/{name}_{part}.txt", text)
    return content.getvalue()


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(tu_download, "SITE", folder.as_uri())
    return folder


def test_what_is_missing_is_downloaded_if_allowed(tmp_path, site):
    outside = {"../../escaped.txt": "1", "/TOY_escaped.sh": "1", "TOY/processed/data.pt": "1"}
    (site / "TOY.zip").write_bytes(archive({**FILES, **outside}))
    root = tmp_path / "some" / "root"
    with pytest.raises(DatasetError, match=r"expected the text files of TOY, there is no TOY_A.txt"):
        load_tu_dataset("TOY", root)
    assert not root.parent.exists()
    assert len(load_tu_dataset("TOY", root, download=True).graphs) == 3
    found = sorted(path.name for path in root.parent.rglob("*") if path.is_file())
    assert found == sorted(f"TOY_{part}.txt" for part in FILES)


@pytest.mark.parametrize("content", [None, b"no archive", archive({"readme.md": "nothing here"}), archive(FILES)[:300]])
def test_a_failed_download_leaves_nothing_behind(tmp_path, site, content):
    if content is not None:
        (site / "TOY.zip").write_bytes(content)
    with pytest.raises(DatasetError, match=r"cannot (be downloaded|store TOY)"):
        load_tu_dataset("TOY", tmp_path / "some" / "root", download=True)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
