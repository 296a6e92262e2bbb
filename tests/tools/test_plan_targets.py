"""TPU slices that are not there, and this machine."""

import importlib.util
import os

import jax
import pytest

from mixdtp_jax.tools.plan import targets

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='libtpu, which compiles for TPUs, is not installed',
)


@needs_libtpu
@pytest.mark.parametrize(
  ('topology', 'devices', 'gib', 'teraflops'),
  [
    ('v5e:4x4', 16, 16, 197),
    ('v5e:1x1', 1, 16, 197),
    ('v5p:4x4x4', 64, 95, 459),
    ('v4:2x2x1', 4, 32, 275),
    ('v3:2x2', 8, 16, 61.5),  # two devices a chip
    ('v6e:2x2', 4, 32, 918),
  ],
)
def test_a_slice_has_the_devices_and_figures_of_its_chips(
  topology, devices, gib, teraflops
):
  found = targets.tpu_slice(topology)
  assert len(found.devices) == devices
  assert found.devices[0].platform == 'tpu'
  # libtpu keeps some of it, and of a v5p there is more than is published.
  assert 0.9 * gib < found.memory / 2**30 < 1.01 * gib
  assert found.peak == teraflops * 1e12
  assert found.bandwidth > 1e11
  assert found.ring > 1e10


@needs_libtpu
def test_an_impossible_slice_is_refused_in_a_line():
  with pytest.raises(ValueError, match='--topology v5e:3x3: .*2x2x1') as error:
    targets.tpu_slice('v5e:3x3')
  assert '\n' not in str(error.value)


def test_without_libtpu_the_remedy_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r'pip install .*\[plan\]'):
    targets.tpu_slice('v5e:4x4')


def test_this_machine():
  found = targets.this_machine('float32')
  assert found.devices == tuple(jax.devices())
  physical = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  assert found.memory == physical // 8
  assert found.bandwidth is found.ring is None
  # Eight devices share the cores.
  assert 1e8 < found.peak < 1e13


@pytest.mark.parametrize(
  ('message', 'needed', 'available'),
  [
    (
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
      'for HLO temporaries (21.02G) exceeds available HBM (15.75G).',
      21.02,
      15.75,
    ),
    (
      'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 1.5T of '
      '95.74G hbm. Exceeded hbm capacity by 1.4T.',
      1536,
      95.74,
    ),
  ],
)
def test_reads_what_the_compiler_lacks(message, needed, available):
  found = targets.out_of_memory(jax.errors.JaxRuntimeError(message))
  assert found['needed'] / 2**30 == pytest.approx(needed)
  assert found['available'] / 2**30 == pytest.approx(available)
  assert targets.out_of_memory(jax.errors.JaxRuntimeError('else')) == {}
