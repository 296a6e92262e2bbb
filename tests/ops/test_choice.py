"""Which kernels a program is traced with."""

import types

import jax
import jax.numpy as jnp
import pytest

from mixdtp_jax.ops import choice, dense


def devices(platform, count):
  return [types.SimpleNamespace(platform=platform)] * count


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
  monkeypatch.setattr(choice, 'registered', lambda: True)


@pytest.mark.parametrize(
  ('wanted', 'there', 'chosen'),
  [
    ('auto', devices('cpu', 1), 'cpu'),
    ('auto', devices('cpu', 8), 'xla'),
    ('auto', devices('gpu', 1), 'xla'),
    ('auto', devices('tpu', 4), 'tpu'),
    ('cpu', devices('cpu', 1), 'cpu'),
    ('tpu', devices('tpu', 4), 'tpu'),
    ('xla', devices('cpu', 1), 'xla'),
    ('xla', devices('tpu', 4), 'xla'),
  ],
)
def test_kernels_follow_from_the_devices(wanted, there, chosen):
  assert choice.resolve(wanted, there) == chosen


@pytest.mark.parametrize(
  ('wanted', 'there'),
  [
    ('cpu', devices('cpu', 8)),
    ('cpu', devices('gpu', 1)),
    ('tpu', devices('cpu', 1)),
  ],
)
def test_devices_that_cannot_run_them_are_named(wanted, there):
  message = f'^kernels = {wanted}: the {len(there)} devices of platform '
  with pytest.raises(ValueError, match=message):
    choice.resolve(wanted, there)


def test_without_a_compiler_there_is_no_native_code(monkeypatch):
  monkeypatch.setattr(choice, 'registered', lambda: False)
  assert choice.resolve('auto', devices('cpu', 1)) == 'xla'
  with pytest.raises(ValueError, match='a C.. compiler'):
    choice.resolve('cpu', devices('cpu', 1))


def lowered(jitted):
  """Returns the program of two images for a CPU, on any machine."""
  image = jnp.ones((1, 2, 3, 4))
  return jitted.trace(image, image).lower(lowering_platforms=('cpu',)).as_text()


def test_a_function_is_traced_again_for_other_kernels():
  gram = jax.jit(dense.gram)

  def native(chosen):
    with choice.kernels(chosen):
      return 'Gram' in lowered(gram)

  assert [native(chosen) for chosen in ('xla', 'cpu', 'xla')] == [0, 1, 0]


def test_a_wrapped_function_is_traced_with_its_kernels():
  assert 'Gram' in lowered(jax.jit(choice.traced_with('cpu', dense.gram)))
  assert 'Gram' not in lowered(jax.jit(dense.gram))
