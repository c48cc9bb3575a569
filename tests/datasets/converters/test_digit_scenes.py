import numpy as np
import pytest
from dataset_converters.digit_scenes import (
    LUMA,
    MAX_OVERLAP,
    MIN_CONTRAST,
    MIN_VISIBLE,
    box_overlap,
    draw_glyph,
    make_scene,
    make_texture,
    pick_color,
    sample_bilinear,
)
from dataset_converters.digits import load_glyphs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

GLYPHS, DIGITS = load_glyphs()
SIZE = 128


def scene(seed, sources=None, size=SIZE):
    sources = np.arange(len(DIGITS)) if sources is None else sources
    rng = np.random.RandomState(seed)
    return make_scene(rng, GLYPHS, DIGITS, sources, size)


def test_sampling_agrees_with_scipy_inside_and_outside():
    rng = np.random.RandomState(0)
    image = rng.random_sample((5, 7))
    y, x = rng.uniform(-3, 9, (2, 400))
    expected = map_coordinates(
        np.pad(image, 4), [y + 4, x + 4], order=1, mode='constant'
    )
    assert np.allclose(sample_bilinear(image, y, x), expected, atol=5e-3)


def test_upright_glyph_has_the_asked_height_and_place():
    ink = draw_glyph(np.ones((8, 8)), 100, (60, 40), height=32, angle=0)
    rows = np.flatnonzero((ink >= 0.5).any(1))
    columns = np.flatnonzero((ink >= 0.5).any(0))
    assert rows[0] == 44 and rows[-1] == 76
    assert columns[0] == 24 and columns[-1] == 56


def test_angles_turn_counter_clockwise():
    bar = np.zeros((8, 8))
    bar[:, 3:5] = 1
    ink = draw_glyph(bar, 64, (32, 32), height=48, angle=15)
    top, bottom = ink[14].argmax(), ink[50].argmax()
    # the top end of an upright bar goes left: 36 rows x tan(15 degrees)
    assert bottom - top == pytest.approx(36 * np.tan(np.radians(15)), abs=2)


def test_box_overlap_by_hand():
    first, second = np.zeros((2, 10, 10), bool)
    first[0:4, 0:4] = True
    second[2:8, 3:5] = True
    # 2 rows x 1 column are shared; the smaller box has 6 x 2 pixels
    assert box_overlap(first, second) == pytest.approx(2 / 12)
    assert box_overlap(second, first) == pytest.approx(2 / 12)
    assert box_overlap(first, first) == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_every_scene_is_well_formed(seed):
    made = scene(seed)
    assert made.image.shape == (SIZE, SIZE, 3)
    assert made.image.dtype == np.uint8
    assert 3 <= len(made.instances) <= 6
    stack = np.stack([instance.mask for instance in made.instances])
    assert stack.any((1, 2)).all()
    assert stack.sum(0).max() == 1, 'visible masks exclude each other'
    for instance in made.instances:
        assert DIGITS[instance.source] == instance.digit
        values = np.unique(made.label_map[instance.mask])
        assert values.tolist() == [instance.digit + 1]
    assert ((made.label_map == 0) == ~stack.any(0)).all()


def test_digits_overlap_now_and_then_but_little():
    touching = 0
    for seed in range(20):
        masks = [instance.mask for instance in scene(seed).instances]
        for index, mask in enumerate(masks):
            for other in masks[:index]:
                shared = box_overlap(mask, other)
                touching += shared > 0
                # boxes of what is visible are no larger than those placed,
                # so the bound holds but for what was covered
                assert shared <= MAX_OVERLAP / MIN_VISIBLE**2
    assert touching


def test_same_seed_same_scene_other_seed_other_scene():
    first, again, other = scene(5), scene(5), scene(6)
    assert (first.image == again.image).all()
    assert (first.label_map == again.label_map).all()
    assert (first.image != other.image).mean() > 0.9


def test_only_the_allowed_digits_are_drawn():
    allowed = np.concatenate(
        [np.flatnonzero(value == DIGITS)[:2] for value in range(10)]
    )
    for seed in range(10):
        sources = {one.source for one in scene(seed, allowed).instances}
        assert sources <= set(allowed.tolist())


@pytest.mark.parametrize('size', [64, 200])
def test_digits_grow_with_the_scene(size):
    heights = []
    for seed in range(8):
        for instance in scene(seed, size=size).instances:
            heights.append(np.ptp(np.flatnonzero(instance.mask.any(1))) + 1)
    # 0.22..0.44 of the side, but for rotation and for pale or covered ends
    assert 0.1 * size < min(heights) and max(heights) < 0.55 * size


def test_colors_are_brighter_than_what_is_behind():
    rng = np.random.RandomState(0)
    for _ in range(20):
        behind = make_texture(rng, 64).reshape(-1, 3)
        color = pick_color(rng, behind)
        assert (color - behind.mean(0)) @ LUMA >= MIN_CONTRAST


def test_backgrounds_differ_and_are_textured():
    textures = [make_texture(np.random.RandomState(i), 64) for i in range(12)]
    means = np.array([texture.mean((0, 1)) for texture in textures])
    assert means.std(0).min() > 15
    assert all(texture.std((0, 1)).max() > 4 for texture in textures)
