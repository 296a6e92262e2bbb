import json
import math
import pathlib
import xml.etree.ElementTree

import pytest

from mixdtp_jax.tools.bench import case, growth

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'
_SETTINGS = {
  'config': str(_TESTS / 'tiny_prenet.py'), 'sizes': '16,32', 'batches': '1',
  'devices': '1,2', 'crop': 16, 'overrides': [], 'repeats': 1, 'out': None,
  'plot': None,
}  # fmt: skip


@pytest.mark.slow
def test_every_point_is_measured(environment, monkeypatch, tmp_path, capsys):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  out, plot = tmp_path / 'growth.json', tmp_path / 'new' / 'growth.svg'
  case.run('growth', **_SETTINGS | {'out': str(out), 'plot': str(plot)})
  sweeps = json.loads(out.read_text())['sweeps']
  assert [[p['x'] for p in sweep['points']] for sweep in sweeps] == [
    [256, 1024], [1], [1], [1, 2],
  ]  # fmt: skip
  assert [sweep['axis'] for sweep in sweeps] == [
    'pixels', 'images', 'images', 'devices',
  ]  # fmt: skip
  assert sweeps[3]['name'] == 'training, 2 x 16x16 pixels'
  assert math.isfinite(sweeps[0]['powers']['time'])
  text = capsys.readouterr().out
  assert 'time as pixels to the power' in text
  root = xml.etree.ElementTree.fromstring(plot.read_text())
  words = [t.text for t in root.iter('{http://www.w3.org/2000/svg}text')]
  assert 'Time against pixels' in words
  assert 'training, 2 x 16x16 pixels' in words


def _sweep(points, failure=''):
  found = [
    {'x': x, 'seconds': seconds, 'memory': memory, 'source': 'the test'}
    for x, seconds, memory in points
  ]
  return growth.Sweep('inference', 'pixels', found, failure)


def test_powers_are_slopes_between_logarithms():
  assert growth.slope([(1, 3), (2, 6), (4, 12)]) == pytest.approx(1)
  assert growth.slope([(1, 1), (10, 100)]) == pytest.approx(2)
  assert math.isnan(growth.slope([(1, 1)]))


def test_the_table_has_the_power_of_each_step():
  text = str(
    growth.table(
      _sweep(
        [
          (64, (1.0, 3.0), 2**20),
          (256, (8.0,), None),
          (1024, (128.0,), 2**22),
        ],
        failure='4096 pixels: full',
      )
    )
  )
  rows = [line.split() for line in text.splitlines()]
  assert rows[2] == ['64', '2', '-', '1', '-']
  assert rows[3] == ['256', '8', '1.00', '-', '-']
  assert rows[4] == ['1,024', '128', '2.00', '4', '-']
  assert rows[5] == ['4096', 'pixels:', 'full']
  assert 'time as pixels to the power 1.50' in text
  assert 'memory as pixels to the power 0.50' in text


def test_what_is_linear_meets_the_largest():
  sweep = _sweep([(10, (1.0,), 5), (40, (8.0,), 9)])
  time, *_ = growth.charts([sweep])
  assert time.series[1] == ('linear in pixels', [10, 40], [2.0, 8.0])
  assert time.log


@pytest.mark.parametrize(
  'change, message',
  [
    ({'sizes': '64,'}, '--sizes : needs a number of at least 1'),
    ({'batches': '0'}, '--batches 0'),
    ({'devices': 'two'}, '--devices two'),
    ({'config': str(_TESTS / 'tiny.py'), 'crop': 9}, '--crop 9'),
  ],
)
def test_settings_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    case.run('growth', **_SETTINGS | change)
