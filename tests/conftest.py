"""Settings of every test: eight CPU devices, and where real data may lie.

MIXDTP_TEST_PLATFORM=cuda (or tpu) runs tests on the devices at hand instead.
Without TensorFlow, tests of models, ops and the update run all the same.
"""

import os
import pathlib

# Before JAX is imported anywhere: tests of sharding need several devices.
PLATFORM = os.environ.get('MIXDTP_TEST_PLATFORM', 'cpu')
os.environ['JAX_PLATFORMS'] = PLATFORM
_flags = [os.environ.get('XLA_FLAGS', '')]
_flags += ['--xla_force_host_platform_device_count=8']
if PLATFORM != 'cpu':
  # A GPU multiplies float32 in full, and takes the same kernels each time.
  os.environ['JAX_DEFAULT_MATMUL_PRECISION'] = 'highest'
  _flags += ['--xla_gpu_autotune_level=0']
os.environ['XLA_FLAGS'] = ' '.join(_flags).strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import pytest  # noqa: E402

pytest_plugins = (
  'tests.helpers.tiny',
  'tests.helpers.child_runs',
  'tests.helpers.engines',
  'tests.helpers.tiny_weights',
  'tests.helpers.derain',
  'tests.helpers.slow_queue',
)

REPOSITORY = pathlib.Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
  for item in items:
    if 'real_data' in item.fixturenames:
      item.add_marker('real_data')


def pytest_runtest_setup(item):
  """Skips a test that needs a package or a program that is not there."""
  if item.get_closest_marker('torch'):
    pytest.importorskip('torch', reason='PyTorch is not installed')
  if item.get_closest_marker('compiler'):
    from mixdtp_jax.ops.cpu import native

    if PLATFORM != 'cpu':
      pytest.skip(f'native code is for a CPU, not for {PLATFORM}')
    if not native.registered():
      pytest.skip('there is no C++ compiler')


@pytest.fixture(scope='session')
def real_data() -> pathlib.Path:
  """The folder with rain100l/ and others; skips where it is absent."""
  default = REPOSITORY.parent / 'shared' / 'data'
  folder = pathlib.Path(os.environ.get('MIXDTP_DATA', default))
  if not (folder / 'rain100l').is_dir():
    pytest.skip(f'no real rain data in {folder} (set MIXDTP_DATA)')
  return folder


@pytest.fixture
def eight_devices():
  """Skips a test of several devices where there are fewer."""
  import jax

  if jax.device_count() < 8:
    pytest.skip(f'needs eight devices; there are {jax.device_count()}')


@pytest.fixture(
  params=['shifted', pytest.param('native', marks=pytest.mark.compiler)]
)
def cpu_form(request):
  """A test of each form that a CPU's depthwise convolutions have.

  The eight devices of these tests compute with shifted sums; here the native
  code of a single one does it too.
  """
  from mixdtp_jax.ops import choice

  with choice.kernels('cpu' if request.param == 'native' else 'xla'):
    yield request.param
