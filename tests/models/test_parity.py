"""The network against the original's float64 values, and three Adam steps.

The first case runs as on a single device: on a CPU with native code, if there
is a compiler. The second runs as on several devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.mixdtp import MixDTP
from mixdtp_jax.ops import choice
from mixdtp_jax.ops import ssim as ssim_lib
from mixdtp_jax.ops.cpu import native
from mixdtp_jax.recipe import losses
from mixdtp_jax.recipe.knobs import Loss
from mixdtp_jax.weights.names import MIXDTP_STAGES
from mixdtp_jax.weights.state_dict import from_torch, to_torch
from tests.helpers import golden_values

# Golden stage (a PyTorch module) -> path of ours.
STAGES = {
  'patch_embed': ('detail_dilation',),
  **MIXDTP_STAGES,
  'conv_final': ('mhs', 'to_image'),
}
CASES = {'reference_64x64': 3, 'reference_48x80_batch2_iter6': 6}


@functools.cache
def initial_params(dtype=np.float32):
  return from_torch(golden_values.state_dict(dtype), MixDTPConfig())


@functools.cache
def reference(case):
  return golden_values.load(case)


def step_of(case, dtype=np.float32):
  """Returns a jitted function of params to (loss, outputs), gradients."""
  data = {k: v.astype(dtype) for k, v in reference(case).items() if v.ndim == 4}
  network = MixDTP(MixDTPConfig(steps=CASES[case]))
  loss = losses.make_loss(Loss('negative_ssim', 'ssim_as_published', 0.5))

  def loss_fn(params):
    outputs = network.apply({'params': params}, data['rainy'])
    return loss(outputs, data['clean'])[0], outputs

  return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


def kernels_of_one_device():
  return choice.resolve('auto', jax.devices()[:1])


@functools.cache
def step32(case):
  chosen = kernels_of_one_device() if case == 'reference_64x64' else 'xla'
  with choice.kernels(chosen):
    lowered = step_of(case).lower(initial_params())
  code = native._target('Depthwise') in lowered.as_text()
  assert code == (chosen == 'cpu')
  return lowered.compile()


@functools.cache
def first_step(case):
  return step32(case)(initial_params())


def assert_close_to_largest(actual, expected, tolerance):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_the_default_network_has_the_published_number_of_parameters():
  sizes = [leaf.size for leaf in jax.tree.leaves(initial_params())]
  assert sum(sizes) == 45_246_322


def test_every_stage_and_recurrent_step():
  data = reference('reference_64x64')
  apply = functools.partial(
    MixDTP(MixDTPConfig()).apply,
    # Blocks inside a scan cannot be captured, and are not asked for.
    capture_intermediates=lambda module, _: (
      module.path in STAGES.values() or module.name == 'conv_out'
    ),
  )
  with choice.kernels(kernels_of_one_device()):
    outputs, captured = jax.jit(apply)(
      {'params': initial_params()}, data['rainy']
    )
  captured = captured['intermediates']
  for stage, path in STAGES.items():
    node = functools.reduce(lambda tree, key: tree[key], path, captured)
    actual = node['__call__'][0]
    every = 1 if actual.shape[-1] == 3 else 8
    assert_close_to_largest(actual[..., ::every], data[f'stage/{stage}'], 2e-5)
  residuals = captured['progressive']['step']['conv_out']['__call__']
  assert_close_to_largest(
    np.stack(residuals), data['recurrent_residuals'], 2e-5
  )
  assert_close_to_largest(outputs.final, data['final'], 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_outputs_losses_and_metrics(case):
  data = reference(case)
  (loss, outputs), _ = first_step(case)
  assert_close_to_largest(outputs.final, data['final'], 2e-5)
  assert_close_to_largest(outputs.coarse, data['coarse'], 2e-5)
  assert float(loss) == pytest.approx(float(data['loss_published']), abs=1e-5)
  for name, image in (
    ('final', outputs.final),
    ('coarse', outputs.coarse),
    ('input', data['rainy']),
  ):
    ssim = ssim_lib.ssim(image, data['clean'], padding='SAME').mean()
    assert float(ssim) == pytest.approx(float(data[f'ssim_{name}']), abs=1e-5)
  error = np.square(data['rainy'].astype(np.float64) - data['clean'])
  psnr = -10 * np.log10(error.mean((1, 2, 3)))
  assert psnr.mean() == pytest.approx(float(data['psnr_input']))


def assert_gradients_close(case, gradients, names, tolerance):
  data = reference(case)
  gradients = to_torch(gradients, MixDTPConfig())
  assert set(gradients) == set(data['grad_names'])
  for name, norm, probe in zip(
    data['grad_names'], data['grad_norms'], data['grad_probe'], strict=True
  ):
    if name in names:
      gradient = gradients[name].astype(np.float64)
      assert np.linalg.norm(gradient) == pytest.approx(norm, rel=tolerance), (
        name
      )
      u = golden_values.uniform(f'probe/{name}', gradient.shape)
      assert np.sum(gradient * u) == pytest.approx(
        probe, abs=tolerance * norm
      ), name


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_gradient_of_every_parameter_in_float32(case):
  names = set(golden_values.SHAPES)
  if CASES[case] == 6:
    # Sums that nearly cancel: one has a norm of 1e-7, and weights changed by
    # half a unit of float32's last place change it by 2 % in float64. Their
    # test is the one in float64.
    names = {name for name in names if not name.endswith('temperature')}
  assert_gradients_close(case, first_step(case)[1], names, 1e-3)


@pytest.mark.slow
def test_gradient_of_every_parameter_in_float64():
  case = 'reference_48x80_batch2_iter6'
  with jax.enable_x64(True):
    (loss, outputs), gradients = step_of(case, np.float64)(
      initial_params(np.float64)
    )
  data = reference(case)
  # The file holds its images in float32, which is all that differs.
  assert float(loss) == pytest.approx(float(data['loss_published']), abs=1e-7)
  assert_close_to_largest(outputs.final, data['final'], 1e-7)
  assert_gradients_close(case, gradients, set(golden_values.SHAPES), 1e-3)


@pytest.mark.slow
def test_three_adam_steps():
  data = reference('reference_64x64')
  step = step32('reference_64x64')
  optimizer = optax.adam(float(data['adam_lr']), eps=1e-8)
  update = jax.jit(optimizer.update)
  params = jax.tree.map(jnp.asarray, initial_params())
  state = optimizer.init(params)
  actual = []
  for _ in data['adam_losses']:
    (loss, _), gradients = step(params)
    actual.append(float(loss))
    updates, state = update(gradients, state)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(actual, data['adam_losses'], rtol=0, atol=5e-5)
