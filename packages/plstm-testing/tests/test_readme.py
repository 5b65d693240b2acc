"""The examples of a README are found, and run as they stand."""

import pytest

from plstm_testing.conformance import readme

TEXT = """# Title

## Use

```python
found = __name__
```

```python
raise KeyError("second")
```

```python no-run
this is not run
```

## Train

```python
pass
```
"""


def test_examples_are_named_by_their_headings(tmp_path):
    place = tmp_path / "README.md"
    place.write_text(TEXT, encoding="utf-8")
    found = readme.examples(place)
    assert list(found) == ["Use", "Use (2)", "Train"]
    readme.run(found["Use"], place)
    with pytest.raises(KeyError, match="second"):
        readme.run(found["Use (2)"], place)


def test_one_test_runs_them_all(tmp_path, monkeypatch):
    place = tmp_path / "README.md"
    place.write_text(TEXT, encoding="utf-8")
    made = readme.example_test(place)
    (mark,) = made.pytestmark
    assert list(mark.args[1]) == ["Use", "Use (2)", "Train"]
    made("Train", tmp_path, monkeypatch)
    with pytest.raises(KeyError, match="second"):
        made("Use (2)", tmp_path, monkeypatch)


def test_a_readme_without_examples_is_refused(tmp_path):
    place = tmp_path / "README.md"
    place.write_text("# Title\n", encoding="utf-8")
    with pytest.raises(ValueError, match="readme: expected blocks that begin with ```python, got none in"):
        readme.examples(place)
