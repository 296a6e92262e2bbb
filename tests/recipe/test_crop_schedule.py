import pytest

from mixdtp_jax.recipe.crop_schedule import images_before, stages
from mixdtp_jax.recipe.knobs import Data, Recipe


def _recipe(*growth):
  return Recipe(
    data=Data(crop=128), batch_size=8, growth=growth, num_train_steps=100
  )


def test_without_growth_there_is_one_stage():
  assert stages(_recipe()) == [(0, 100, 128, 8, 0)]


def test_stages_follow_one_another():
  assert stages(_recipe((10, 160, 5), (30, 192, 4))) == [
    (0, 10, 128, 8, 0),
    (10, 30, 160, 5, 80),
    (30, 100, 192, 4, 180),
  ]


def test_images_are_counted_update_by_update():
  recipe = _recipe((10, 160, 5), (30, 192, 4))
  sizes = [8] * 10 + [5] * 20 + [4] * 70
  for step in range(101):
    assert images_before(recipe, step) == sum(sizes[:step])


@pytest.mark.parametrize(
  'growth',
  [
    [(0, 160, 5)],
    [(10, 160, 5), (10, 192, 4)],
    [(20, 160, 5), (10, 192, 4)],
    [(100, 160, 5)],
    [(10, 0, 5)],
    [(10, 160, 0)],
  ],
  ids=str,
)
def test_stages_that_cannot_be_are_refused(growth):
  with pytest.raises(ValueError, match='growth = .*: needs'):
    _recipe(*growth)
