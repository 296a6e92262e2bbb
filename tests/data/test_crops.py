"""Which part of an image a crop shows, and how it is turned."""

import numpy as np
import pytest

from mixdtp_jax.data import train_batches
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime import mesh as mesh_lib
from tests.helpers.batches import SHAPES, is_crop, make_config, open_pairs, take


def test_the_crop_is_alive_and_moves(data_dir):
  batch = take(make_config(crop=8), data_dir, 1)[0]
  assert batch['clean'].shape == (8, 8, 8, 3)
  # 40 crops of 5 images: equal positions would leave 5 different ones.
  crops = [b['rainy'] for b in take(make_config(crop=8), data_dir, 5)]
  assert len(np.unique(np.concatenate(crops)[:, 0, 0], axis=0)) > 30


def variants(crop):
  """Returns {(mirrored, quarter turns): image} of all variants of a crop."""
  return {
    (flip, turns): np.rot90(crop[:, ::-1] if flip else crop, turns)
    for flip in (False, True)
    for turns in range(4)
  }


@pytest.mark.parametrize(('flip', 'rotate'), [(1, 0), (0, 1), (1, 1)])
def test_flip_and_rotate_are_alive(data_dir, flip, rotate):
  plain = take(make_config(flip=False, rotate=False), data_dir, 8)
  config = make_config(flip=bool(flip), rotate=bool(rotate))
  seen = set()
  for before, after in zip(plain, take(config, data_dir, 8), strict=True):
    for row in range(8):
      forms = variants(before['clean'][row])
      found = [
        f for f, x in forms.items() if np.array_equal(x, after['clean'][row])
      ]
      assert len(found) == 1
      seen.update(found)
  assert seen == {
    (f, t) for f in (False, True)[: 1 + flip] for t in range(4 if rotate else 1)
  }


def second_cell(image, transpose):
  """Returns the crop that the MixDTPNet repository takes, with cells of 32."""
  height, width, _ = image.shape
  if transpose and not height > width:
    image = image.transpose(1, 0, 2)
  height, width = (side // 32 * 32 for side in image.shape[:2])
  image = image[:height, :width]
  cells = [
    image[top : top + 32, left : left + 32]
    for top in range(0, height - 31, 32)
    for left in range(0, width - 31, 32)
  ]
  return cells[1]


@pytest.mark.parametrize('transpose', [False, True])
def test_second_cell_is_that_of_the_original(published_dir, transpose):
  config = make_config(
    crop=32,
    crops='second_cell',
    transpose_landscape=transpose,
    flip=False,
    rotate=False,
  )
  config.batch_size = len(SHAPES)
  pairs = open_pairs(published_dir)
  for side in ('rainy', 'clean'):
    cells = [second_cell(pairs[i][side], transpose) for i in range(len(SHAPES))]
    # Two epochs: an image shows the same cell in each.
    for batch in take(config, published_dir, 2, rows=range(len(SHAPES))):
      shown = {np.uint8(np.round(crop * 255)).tobytes() for crop in batch[side]}
      assert shown == {cell.tobytes() for cell in cells}


def test_transposing_comes_before_a_random_crop(published_dir):
  pairs = open_pairs(published_dir)
  images = [pairs[i]['clean'].astype(np.float32) / 255 for i in range(5)]
  upright = [x if x.shape[0] > x.shape[1] else x.swapaxes(0, 1) for x in images]
  for transpose, whole, rest in ((True, upright, 3), (False, images, 0)):
    config = make_config(
      crop=32, transpose_landscape=transpose, flip=False, rotate=False
    )
    config.batch_size = 5
    (batch,) = take(config, published_dir, 1, rows=range(5))
    assert all(any(is_crop(c, x) for x in whole) for c in batch['clean'])
    # The three that were wide or square are crops of no image as it was.
    changed = [not any(is_crop(c, x) for x in images) for c in batch['clean']]
    assert sum(changed) == rest


def test_an_image_without_a_second_cell_is_named(data_dir):
  config = make_config(crops='second_cell', data_dir=data_dir)
  with pytest.raises(ValueError, match=r'^0 has 30x24 pixels, .*crop = 16'):
    train_batches.train_batches(
      make_recipe(config), start_step=0, mesh=mesh_lib.make_mesh()
    )
