import io

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from filters.perceptual import MIRRORED, perceptual_hash, perceptual_vectors, pixel_hash


def scene(seed, size=(160, 120)):
    """A picture of soft patches, as a photograph is from afar."""
    chance = np.random.default_rng(seed)
    patches = [
        Image.fromarray(chance.integers(0, 256, (side, side, 3), np.uint8)).resize(size)
        for side in (3, 7, 15)
    ]
    return Image.blend(Image.blend(patches[0], patches[1], 0.4), patches[2], 0.2)


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def distance(one, other):
    hashes = [perceptual_hash(image.convert("L")) for image in (one, other)]
    mine, yours = perceptual_vectors(hashes)
    products = mine * yours
    return 1 - float(products[:-MIRRORED].sum() + abs(products[-MIRRORED:].sum()))


COPIES = {
    "half the size": lambda image: image.resize((80, 60)),
    "stretched": lambda image: image.resize((160, 160)),
    "JPEG at quality 30": lambda image: jpeg(image, 30),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
    "framed": lambda image: ImageOps.expand(image, 12, "black"),
    "framed twice": lambda image: ImageOps.expand(ImageOps.expand(image, 5, "red"), 9, "white"),
    "framed and saved as JPEG": lambda image: jpeg(ImageOps.expand(image, 12, "white"), 30),
    "cropped by 5 %": lambda image: image.crop((6, 1, 158, 115)),
    "turned by 1.5 degrees": lambda image: image.rotate(1.5, Image.Resampling.BICUBIC),
}


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("seed", range(4))
def test_a_copy_is_near(change, seed):
    assert distance(scene(seed), COPIES[change](scene(seed))) < 0.15


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1001, 2000))
def test_another_picture_is_far(seed, other):
    assert distance(scene(seed), scene(other)) > 0.2


@pytest.mark.parametrize("colour", ["white", "black", (1, 200, 3)])
def test_a_blank_picture_has_no_hash(colour):
    assert perceptual_hash(Image.new("RGB", (50, 40), colour).convert("L")) is None


def test_a_picture_of_one_pixel_has_no_hash():
    assert perceptual_hash(Image.new("L", (1, 1), 7)) is None


def test_a_dot_on_a_plain_ground_is_not_trimmed_to_the_dot():
    page = Image.new("L", (128, 128), 255)
    page.paste(0, (20, 20, 30, 30))
    other = Image.new("L", (128, 128), 255)
    other.paste(0, (80, 90, 90, 100))
    one, another = perceptual_vectors([perceptual_hash(page), perceptual_hash(other)])
    assert 1 - float(one @ another) > 0.2


def test_the_signs_are_those_of_imagehash():
    grey = scene(5, size=(32, 32)).convert("L")
    (ours,) = perceptual_vectors([perceptual_hash(grey)])
    bits = imagehash.phash(grey).hash
    theirs = np.concatenate([bits[:, 0::2].T.ravel(), bits[:, 1::2].T.ravel()])
    # ImageHash cuts at the median instead of at 0, which lies near.
    assert ((ours > 0) == theirs)[1:].mean() > 0.9


def test_pixels_and_shape_decide_the_pixel_hash():
    image = scene(1)
    png = io.BytesIO()
    image.save(png, "PNG")
    assert pixel_hash(image) == pixel_hash(Image.open(png))
    assert pixel_hash(Image.new("RGB", (2, 8))) != pixel_hash(Image.new("RGB", (4, 4)))
    image.putpixel((3, 3), (1, 2, 3))
    assert pixel_hash(image) != pixel_hash(scene(1))
