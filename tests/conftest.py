"""Settings of every test: eight CPU devices, and where real data may lie."""

import os
import pathlib

# Before JAX is imported anywhere: tests of sharding need several devices.
os.environ['JAX_PLATFORMS'] = 'cpu'
_flags = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = (
  f'{_flags} --xla_force_host_platform_device_count=8'.strip()
)
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import pytest  # noqa: E402

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='session')
def real_data() -> pathlib.Path:
  """The folder with rain100l/ and others; skips where it is absent."""
  default = REPOSITORY.parent / 'shared' / 'data'
  folder = pathlib.Path(os.environ.get('MIXDTP_DATA', default))
  if not (folder / 'rain100l').is_dir():
    pytest.skip(f'no real rain data in {folder} (set MIXDTP_DATA)')
  return folder
