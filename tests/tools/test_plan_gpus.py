"""GPUs that are not there."""

import importlib.util

import pytest

from mixdtp_jax.tools.plan import targets
from tests.helpers.h100 import needs_cuda_plugin

pytestmark = pytest.mark.slow


@needs_cuda_plugin
@pytest.mark.parametrize('number', [1, 8])
@pytest.mark.parametrize(
  ('kind', 'gigabytes', 'teraflops'),
  [('a100', 60, 312), ('h100', 60, 989), ('h200', 105.75, 989)],
)
def test_a_box_has_its_gpus_and_their_figures(
  kind, number, gigabytes, teraflops
):
  found = targets.gpu_box(f'{kind}:{number}')
  assert len(found.devices) == number
  assert kind.upper() in found.devices[0].device_kind
  assert found.devices[0].platform in ('gpu', 'cuda')
  assert found.memory == gigabytes * 10**9
  assert found.peak == teraflops * 1e12
  assert found.bandwidth > 2e12
  assert found.ring > 2e11


@pytest.mark.parametrize('topology', ['h100', 'h100:', 'h100:0', 'h100:2x8'])
def test_what_is_no_box_is_refused(topology):
  with pytest.raises(ValueError, match='1 to 8, such as h100:8'):
    targets.gpu_box(topology)


def test_without_the_plugin_the_remedy_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r'pip install .*\[plan-gpu\]'):
    targets.gpu_box('h100:8')
