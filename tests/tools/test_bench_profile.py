import json
import pathlib

import pytest

from mixdtp_jax.tools.bench.profile import bench_profile

pytestmark = pytest.mark.usefixtures('quick_compiler')

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'


@pytest.fixture(scope='module')
def profile(tmp_path_factory):
  """What is printed, and what is written."""
  out = tmp_path_factory.mktemp('profile') / 'profile.json'
  with pytest.MonkeyPatch.context() as patch:
    lines = []
    patch.setattr('builtins.print', lambda *text, **_: lines.extend(text))
    bench_profile(
      config=str(_TESTS / 'tiny_prenet.py'),
      crop=16,
      batch='2',
      overrides=[],
      repeats=2,
      out=str(out),
    )
  return '\n'.join(lines), json.loads(out.read_text())


def test_every_piece_has_times_and_a_bound(profile):
  _, found = profile
  counts = {}
  for piece in found['pieces']:
    counts[piece['kind']] = counts.get(piece['kind'], 0) + piece['count']
    for part in (piece['forward'], piece['backward']):
      if piece['kind'] == 'optimizer' and part is piece['backward']:
        assert part is None
        continue
      assert len(part['seconds']) == 2
      assert min(part['seconds']) > 0
      assert part['bytes'] > 0
      assert part['bound'] > 0
  assert counts == {
    'conv3x3': 13, 'convlstm gates': 1, 'loss': 1, 'optimizer': 1,
  }  # fmt: skip


def test_the_machine_is_measured(profile):
  text, found = profile
  roofline = found['roofline']
  assert set(roofline['flops']) == {'float32', 'bfloat16'}
  for rates in (*roofline['flops'].values(), roofline['bytes']):
    assert len(rates) > 10
    assert min(rates) > 1e8
  best = max(roofline['flops']['float32']) / 1e9
  assert f'float32 {best:,.0f} GFLOP/s' in text


def test_the_table_sums_up(profile):
  text, found = profile
  rows = {line.split('  ')[0]: line.split() for line in text.splitlines()}
  assert float(rows['sum'][-1]) == 100
  assert int(rows['conv3x3'][1]) == 13
  whole = found['whole']
  assert set(whole) == {'inference', 'update'}
  assert min(whole['update']) > 0
  assert 'unaccounted' in text
  assert 'estimate' in text


def test_no_repeats_are_refused():
  with pytest.raises(ValueError, match='--repeats 0'):
    bench_profile(
      config=None, crop=8, batch='1', overrides=[], repeats=0, out=None
    )
