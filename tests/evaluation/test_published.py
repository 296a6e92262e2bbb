"""The file of published figures, and results ranked among them."""

import dataclasses
import math

import pytest

from mixdtp_jax.evaluation import published
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.evaluation.published import Figure, figures, ranking

_COUNTS = {
  'rain100l': 12,
  'rain100h': 12,
  'rain200l': 13,
  'rain200h': 17,
  'spa': 12,
  'did': 5,
  'ddn': 5,
}


def test_every_figure_is_of_a_known_data_set():
  assert {name: len(figures(name)) for name in _COUNTS} == _COUNTS
  assert len(published.read()) == sum(_COUNTS.values())
  assert figures('pairs') == []
  for name in _COUNTS:
    assert {figure.trained_on for figure in figures(name)} <= {'', name}


def test_every_figure_is_plausible_and_appears_once():
  figures_ = published.read()
  for figure in figures_:
    assert figure.method and figure.source, figure
    assert figure.protocol in ('', *PROTOCOLS), figure
    assert 10 < figure.psnr < 60 and 0.3 < figure.ssim <= 1, figure
    assert figure.params_millions is None or 0 < figure.params_millions < 1e3
  keys = [(f.dataset, f.method, f.protocol, f.source) for f in figures_]
  assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
  'dataset, method, protocol, psnr, ssim, params',
  [
    ('rain100l', 'MixDTPNet', 'rgb', 40.91, 0.991, None),
    ('spa', 'MixDTPNet', 'rgb', 32.43, 0.916, None),
    ('rain100l', 'PReNet', 'prenet', 37.48, 0.979, None),
    ('rain100h', 'PReNet', 'prenet', 29.46, 0.899, None),
    ('rain100l', 'PReNet', '', 32.44, 0.950, None),
    ('rain100h', 'PReNet', '', 26.77, 0.858, None),
    ('rain100h', 'DerainNet', '', 14.92, 0.592, None),
    ('rain100l', 'Restormer', '', 38.99, 0.978, None),
    ('rain200l', 'RCDNet', '', 35.28, 0.971, None),
    ('rain200h', 'RLNet', '', 28.87, 0.895, None),
    ('spa', 'RESCAN', '', 30.36, 0.955, None),
    ('rain200l', 'PReNet', 'y', 37.80, 0.9814, 0.17),
    ('rain200h', 'DRSformer', 'y', 32.17, 0.9326, 33.7),
    ('did', 'Restormer', 'y_float', 35.29, 0.9641, 26.1),
    ('ddn', 'NeRD-Rain', 'y_float', 34.45, 0.9596, None),
    ('spa', 'SWFormer-l', 'y', 50.28, 0.9943, None),
  ],
)
def test_figures_are_as_published(
  dataset, method, protocol, psnr, ssim, params
):
  (figure,) = (
    figure
    for figure in figures(dataset)
    if (figure.method, figure.protocol) == (method, protocol)
  )
  got = (figure.psnr, figure.ssim, figure.params_millions)
  assert got == (psnr, ssim, params)


def _figures(*psnrs, dataset='rain100l', protocol='y'):
  return [
    Figure(dataset, f'method {i}', psnr, 0.9, protocol)
    for i, psnr in enumerate(psnrs)
  ]


def test_ranks_by_psnr_to_the_hundredth():
  ranked = ranking(_figures(30.0, 31.504, 32.0, 31.5, math.nan, 29.0))
  got = [(rank, figure.method[-1]) for rank, figure in ranked]
  assert got == [(1, '2'), (2, '1'), (2, '3'), (4, '0'), (5, '5'), (6, '4')]
  assert ranking([]) == []


# DRSformer has 41.23 dB, PReNet the lowest, SWFormer-l the highest.
@pytest.mark.parametrize(
  'psnr, rank, position',
  [(45.0, 1, 0), (41.5, 3, 2), (41.2345, 3, 3), (30.0, 6, 5), (math.inf, 1, 0)],
)
def test_a_run_has_its_rank(psnr, rank, position):
  content = published.rank('rain200l', {'y': Score(psnr, 0.98)})
  assert list(content['ranked']) == ['y']
  table = content['ranked']['y']
  assert len(table) == 6
  (found,) = (i for i, row in enumerate(table) if row['method'] == 'this run')
  assert found == position
  assert table[found]['rank'] == rank
  assert (table[found]['psnr'], table[found]['ssim']) == (psnr, 0.98)
  ranks = [row['rank'] for row in table]
  assert ranks == ([1, 2, 3, 3, 5, 6] if position == 3 else [1, 2, 3, 4, 5, 6])


def test_ranks_within_protocols_and_lists_the_rest():
  scores = {name: Score(36.0, 0.97) for name in ('rgb', 'rgb8', 'prenet')}
  content = published.rank('rain100l', scores, name='mine')
  assert (content['dataset'], content['name']) == ('rain100l', 'mine')
  # Nothing is published under rgb8.
  assert {
    protocol: [(row['rank'], row['method']) for row in table]
    for protocol, table in content['ranked'].items()
  } == {
    'rgb': [(1, 'MixDTPNet'), (2, 'mine')],
    'prenet': [(1, 'PReNet'), (2, 'mine')],
  }
  unstated = [f for f in figures('rain100l') if not f.protocol]
  assert len(unstated) == 10
  assert content['not_ranked'] == [dataclasses.asdict(f) for f in unstated]


def test_prints_ranks_then_what_cannot_be_ranked():
  scores = {name: Score(36.0, 0.97) for name in PROTOCOLS}
  ranks = published.rank('rain100l', scores, name='mine')
  (table,) = published.tables(ranks)
  assert [row[:5] for row in table.rows[:4]] == [
    ('MixDTPNet', '1', '40.91', '0.991', 'rgb'),
    ('mine', '2', '36.00', '0.970', 'rgb'),
    ('PReNet', '1', '37.48', '0.979', 'prenet'),
    ('mine', '2', '36.00', '0.970', 'prenet'),
  ]
  assert len(table.rows) == 14
  for row in table.rows[4:]:
    assert (row[1], row[4], row[-1]) == ('', 'not stated', '[3]')
  assert '[2] PReNet paper (CVPR 2019)\n[3] MixDTPNet README' in table.note
  # Of the protocols that a run has no scores of, the figures are listed too.
  ranks = published.rank('rain100l', {'y': Score(36.0, 0.97)})
  (table,) = published.tables(ranks)
  assert [row[1] for row in table.rows] == [''] * 12


def test_says_nothing_where_nothing_is_published():
  scores = {name: Score(36.0, 0.97) for name in PROTOCOLS}
  assert published.rank('photographs', scores) == {}
  assert published.tables({}) == []
