import numpy as np
import pytest

from plstm_testing.datasets.digits import distort, load_digits, training_batch
from plstm_testing.datasets.errors import DatasetError, require


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_the_split_is_fixed_and_complete(digits):
    assert digits.train_images.shape == (1442, 8, 8, 1)
    assert digits.test_images.shape == (355, 8, 8, 1)
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 1
    assert np.bincount(digits.test_labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert digits.test_labels[:6].tolist() == [5, 0, 9, 8, 7, 1]
    train = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in train for image in digits.test_images)


def test_a_distortion_depends_on_key_and_index_only(digits):
    indices = [5, 900, 3]
    images, labels = training_batch(digits, indices, key=(0, 1))
    alone = np.concatenate([training_batch(digits, [i], key=(0, 1))[0] for i in indices])
    assert np.array_equal(images, alone)
    assert np.array_equal(labels, digits.train_labels[indices])
    assert not np.array_equal(images, training_batch(digits, indices, key=(0, 2))[0])
    assert np.array_equal(training_batch(digits, indices, key=None)[0], digits.train_images[indices])


def test_distortions_move_little_and_keep_the_ink(digits):
    images = digits.train_images[:200]
    moved = distort(images, range(200), key=(0, 0))
    places = np.arange(8.0)

    def centre(batch):
        return np.stack([(batch[..., 0].sum(axis) * places).sum(-1) / batch.sum((1, 2, 3)) for axis in (1, 2)])

    shift = np.abs(centre(moved) - centre(images))
    assert 0.3 < shift.mean() < 0.7
    assert shift.max() < 2
    ink = moved.sum() / images.sum()
    assert 0.85 < ink < 1.15


def test_no_distortion_changes_nothing(digits):
    images = digits.train_images[:4]
    unmoved = distort(images, range(4), key=(0,), shift=0.0, angle=0.0, stretch=0.0)
    np.testing.assert_allclose(unmoved, images, atol=1e-6)


def test_a_missing_package_names_the_command_that_installs_it():
    with pytest.raises(DatasetError, match=r'no-such is not installed; run: pip install "plstm-testing\[datasets\]"'):
        require("no_such_module.part", "no-such")
