import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.evaluation.network import check_sizes


def test_an_image_too_small_to_be_scored_is_named_before_any_is_restored(
  tmp_path,
):
  for side in ('rainy', 'clean'):
    image = np.zeros((10, 30, 3), np.uint8)
    (tmp_path / side).mkdir()
    Image.fromarray(image).save(tmp_path / side / 'small.png')
  pairs = open_folder(tmp_path)
  with pytest.raises(ValueError, match='small has 30x10 pixels; SSIM needs 11'):
    check_sizes(pairs)
  check_sizes(pairs, ('rgb',))
