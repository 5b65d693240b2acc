import math

import numpy as np
import pytest

from plstm_testing.datasets.arrows import ArrowDataset, ArrowGenerator, CachedArrows, mirror


def nearest_approach(scene):
    """Walk along the ray in small steps, as someone would who knows no formula."""
    walked = np.linspace(0, 3 * scene.size, 6000)
    x = scene.tip[0] + walked * math.cos(scene.angle) - scene.circle[0]
    y = scene.tip[1] + walked * math.sin(scene.angle) - scene.circle[1]
    return np.hypot(x, y).min()


@pytest.mark.parametrize("size", [48, 96])
@pytest.mark.parametrize("scaling", ["pixels", "relative"])
def test_the_ray_hits_the_circle_or_misses_it_clearly(size, scaling):
    generator = ArrowGenerator(base_size=48, scaling=scaling)
    for index in range(400):
        scene = generator.scene(7, "train", index, size)
        distance = nearest_approach(scene) / scene.radius
        # the walk's steps are up to a twentieth of a pixel long
        if scene.label:
            assert distance <= 1.01, scene
        else:
            assert distance >= 1.19, scene


def test_objects_are_inside_the_image_and_apart():
    generator = ArrowGenerator(base_size=64)
    for index in range(400):
        scene = generator.scene(0, "test", index)
        x, y = scene.circle
        assert scene.radius <= min(x, y)
        assert max(x, y) <= 64 - scene.radius
        reach = scene.length / 2
        assert all(reach <= place <= 64 - reach for place in scene.middle)
        steps = np.linspace(-reach, reach, 200)
        arrow_x = scene.middle[0] + steps * math.cos(scene.angle)
        arrow_y = scene.middle[1] + steps * math.sin(scene.angle)
        assert np.hypot(arrow_x - x, arrow_y - y).min() > scene.radius


@pytest.mark.parametrize(("first", "number"), [(0, 2), (10, 50), (0, 1000)])
def test_labels_are_balanced_but_not_in_a_pattern(first, number):
    generator = ArrowGenerator(base_size=48)
    labels = [generator.scene(3, "train", index).label for index in range(first, first + number)]
    assert sum(labels) == number / 2
    if number == 1000:
        assert 400 < sum(labels[::2]) + 500 - sum(labels[1::2]) < 600 or labels[::2] != labels[1::2]
        assert 180 < sum(labels[::2]) < 320


def test_positions_do_not_tell_the_label():
    generator = ArrowGenerator(base_size=48)
    scenes = [generator.scene(0, "train", index) for index in range(6000)]
    labels = np.array([scene.label for scene in scenes], dtype=bool)
    hints = {
        "distance": [math.dist(scene.circle, scene.middle) for scene in scenes],
        "radius": [scene.radius for scene in scenes],
        "length": [scene.length for scene in scenes],
        "border": [min(*scene.middle) for scene in scenes],
        "circle": [scene.circle[0] for scene in scenes],
    }
    for name, values in hints.items():
        values = np.array(values)
        difference = values[labels].mean() - values[~labels].mean()
        error = values.std() * math.sqrt(4 / len(values))
        assert abs(difference) < 4 * error, name


def test_all_lengths_widths_and_directions_occur():
    generator = ArrowGenerator(base_size=100)
    scenes = [generator.scene(0, "train", index) for index in range(600)]
    for name in ("radius", "length", "width"):
        low, high = (100 * bound for bound in getattr(generator, name))
        values = np.array([getattr(scene, name) for scene in scenes])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    turns = np.histogram([scene.angle % (2 * math.pi) for scene in scenes], bins=8, range=(0, 2 * math.pi))[0]
    assert turns.min() > 40


def test_an_item_is_a_function_of_seed_split_index_and_size():
    generator = ArrowGenerator(base_size=32)

    def image(seed=0, split="train", index=4, size=32):
        return ArrowDataset(generator, seed=seed, split=split, num_images=9, size=size)[index][0]

    assert np.array_equal(image(), image())
    assert not np.array_equal(image(), image(seed=1))
    assert not np.array_equal(image(), image(split="test"))
    assert not np.array_equal(image(split="validation"), image(split="test"))
    assert not np.array_equal(image(), image(index=5))
    assert image(size=64).shape == (64, 64, 3)


def test_the_drawn_arrow_points_where_the_scene_says():
    """Find arrow and circle by their colors and decide from the pixels alone."""
    generator = ArrowGenerator(base_size=96, palette="color")
    data = ArrowDataset(generator, seed=0, split="test", num_images=120)
    right = 0
    for index in range(len(data)):
        image, label = data[index]
        pixels = image.astype(np.float64)
        is_arrow = (pixels[..., 0] - pixels[..., 2]) > 80
        is_circle = (pixels[..., 2] - pixels[..., 0]) > 80
        arrow, circle = np.argwhere(is_arrow) + 0.5, np.argwhere(is_circle) + 0.5
        middle = arrow.mean(0)
        axis = np.linalg.svd(arrow - middle, full_matrices=False)[2][0]
        # the head is broader than the shaft, so most of the ink lies before the middle of the extent
        along = (arrow - middle) @ axis
        axis = axis if along.max() < -along.min() else -axis
        target = circle.mean(0) - middle
        radius = math.sqrt(len(circle) / math.pi)
        across = abs(target[0] * axis[1] - target[1] * axis[0])
        hits = bool(target @ axis > 0) and float(across) < 1.1 * radius
        right += hits == bool(label)
    assert right >= 114


def test_pixels_scaling_keeps_sizes_and_relative_scaling_enlarges_them():
    kept = ArrowGenerator(base_size=48)
    grown = ArrowGenerator(base_size=48, scaling="relative")
    radii = {
        name: np.mean([generator.scene(0, "test", index, 96).radius for index in range(300)])
        for name, generator in (("kept", kept), ("grown", grown))
    }
    assert radii["grown"] == pytest.approx(2 * radii["kept"], rel=1e-9)
    distances = [
        np.mean([math.dist(s.circle, s.middle) for s in (kept.scene(0, "test", i, size) for i in range(300))])
        for size in (48, 96)
    ]
    assert distances[1] > 1.7 * distances[0]


@pytest.mark.parametrize("keep", [True, False])
def test_batches_are_ink_on_white_ground(keep):
    data = ArrowDataset(ArrowGenerator(base_size=32), seed=0, split="train", num_images=6)
    cached = CachedArrows(data, keep=keep)
    for _ in range(2):
        images, labels = cached.batch([4, 1])
        assert images.shape == (2, 32, 32, 3)
        assert images.dtype == np.float32
        assert images.min() == 0
        assert images.max() == 1
        assert labels.tolist() == [data.scene(4).label, data.scene(1).label]
        np.testing.assert_array_equal(images[1], 1 - data[1][0].astype(np.float32) / 255)


def test_a_mirrored_image_is_one_of_eight_and_depends_on_key_and_index_only():
    images = np.broadcast_to(np.arange(4 * 4 * 3).reshape(1, 4, 4, 3), (400, 4, 4, 3))
    everyone = mirror(images, range(400), key=(1, 2))
    quarters = [np.rot90(images[0], turns) for turns in range(4)]
    orientations = [side for quarter in quarters for side in (quarter, quarter[::-1])]
    found = np.stack([(everyone == side).all((1, 2, 3)) for side in orientations])
    assert (found.sum(0) == 1).all()
    assert found.sum(1).min() > 25
    assert np.array_equal(mirror(images[:2], [399, 7], key=(1, 2)), everyone[[399, 7]])
    assert not np.array_equal(mirror(images, range(400), key=(1, 3)), everyone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_size": 8}, "base_size: expected at least 16, got 8"),
        ({"margin": 0.9}, r"margin: expected at least 1, got 0.9"),
        ({"scaling": "up"}, "scaling: expected one of 'pixels', 'relative', got 'up'"),
        ({"palette": "gray"}, r"palette: expected one of .*, got 'gray'"),
        ({"radius": (0.2, 0.1)}, r"radius: expected 0 < smallest <= largest, got \(0.2, 0.1\)"),
        ({"radius": (0.1, 0.4)}, "radius, length: expected sizes that fit into one image"),
    ],
)
def test_impossible_generators_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ArrowGenerator(**{"base_size": 48, **options})


def test_impossible_data_sets_are_refused():
    generator = ArrowGenerator(base_size=32)
    with pytest.raises(ValueError, match=r"split: expected one of .*, got 'dev'"):
        ArrowDataset(generator, seed=0, split="dev", num_images=2)
    with pytest.raises(ValueError, match="num_images: expected at least 1, got 0"):
        ArrowDataset(generator, seed=0, split="test", num_images=0)
    with pytest.raises(IndexError, match="index: expected 0 <= index < 2, got 2"):
        ArrowDataset(generator, seed=0, split="test", num_images=2)[2]
