import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.measure import memory

_MIB = 2**20


@pytest.mark.skipif(
  not os.access('/proc/self/clear_refs', os.W_OK),
  reason='no /proc/self/clear_refs to write here',
)
@pytest.mark.parametrize('mib', [32, 128, 64])
def test_a_process_peak_is_what_the_thunk_held(mib):
  kept = np.ones(16 * _MIB // 8)  # held before, so not counted
  peak = memory.peak_of_process(lambda: np.ones(mib * _MIB // 8))
  assert peak.bytes == pytest.approx(mib * _MIB, abs=6 * _MIB)
  assert 'VmHWM' in peak.source
  assert kept.all()


def test_without_the_counter_there_is_no_number(monkeypatch, tmp_path):
  monkeypatch.setattr(memory, '_CLEAR_REFS', tmp_path / 'absent' / 'file')
  calls = []
  peak = memory.peak_of_process(lambda: calls.append(1))
  assert peak.bytes is None
  assert peak.source.startswith('not known')
  assert calls == [1]


def test_the_plan_counts_results_but_no_donated_arguments():
  x = jnp.ones(_MIB // 4)  # 1 MiB

  def run(x, y):
    return x + 1, jnp.concatenate([y, y])

  kept = memory.planned(jax.jit(run).lower(x, x).compile())
  donated = memory.planned(jax.jit(run, donate_argnums=0).lower(x, x).compile())
  assert kept.bytes == pytest.approx(3 * _MIB, abs=1000)
  assert donated.bytes == pytest.approx(2 * _MIB, abs=1000)


def test_the_plan_counts_what_is_held_in_between():
  x = jnp.ones((4, 512))

  def run(x):
    large = jnp.sort(x[:, :, None] * x[:, None, :], axis=-1)  # 4 MiB
    return large[..., 0].sum()

  assert memory.planned(jax.jit(run).lower(x).compile()).bytes > 4 * _MIB
