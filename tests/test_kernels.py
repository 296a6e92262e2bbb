"""Whatever compiles a network chooses its kernels, by its own devices."""

import jax
import numpy as np
import pytest

from mixdtp_jax.measure import timed
from mixdtp_jax.models.config import PReNetConfig
from mixdtp_jax.models.factory import abstract_params, final_image
from mixdtp_jax.ops import choice
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.tools.plan.step import abstract_state
from mixdtp_jax.training.step import abstract_batch, make_train_step

pytestmark = [pytest.mark.compiler, pytest.mark.usefixtures('quick_compiler')]

# No other test has it, so nothing is traced already.
_CFG = PReNetConfig(recurrent_width=5, steps=1)
_IMAGES = np.full((1, 8, 8, 3), 0.5, np.float32)


def _params():
  return jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_params(_CFG)
  )


def _train(mesh, kernels):
  recipe = Recipe(model=_CFG, kernels=kernels)
  step = make_train_step(recipe, mesh)
  step.lower(abstract_state(recipe, mesh), abstract_batch(1, 8, mesh))


def _restore(mesh, kernels):
  make_restore(
    final_image(_CFG), _params(), multiple=1, mesh=mesh, kernels=kernels
  )(_IMAGES)


def _in_pieces(mesh, kernels):
  devices = list(mesh.devices.flat)
  Engine(_CFG, _params(), devices=devices, kernels=kernels)(_IMAGES[0])


def _measure(mesh, kernels):
  timed.make_inference(_CFG, _params(), _IMAGES, mesh, kernels)


@pytest.mark.parametrize(
  'compile_network', [_train, _restore, _in_pieces, _measure]
)
def test_one_cpu_device_computes_natively(
  compile_network, monkeypatch, tmp_path
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  usable, natively = choice.usable, []
  monkeypatch.setattr(
    choice,
    'usable',
    lambda dtype: natively.append(usable(dtype)) or natively[-1],
  )
  mesh = make_mesh(jax.devices()[:1])
  compile_network(mesh, 'xla')
  assert natively and not any(natively)
  natively.clear()
  compile_network(mesh, 'auto')
  assert any(natively)
