"""The file of published figures, and results placed among them."""

import dataclasses
import math
import re

import pytest

from mixdtp_jax.evaluation import published
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.evaluation.published import Figure, figures, ranking

_HEAD = (
  'dataset,method,psnr,ssim,protocol,trained_on,params_millions,source,note'
)
_LINE = 'rain100l,PReNet,37.48,0.979,prenet,rain100l,,PReNet paper,'
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
  assert len(published._published()) == sum(_COUNTS.values())
  assert figures('pairs') == []
  for name in _COUNTS:
    assert {figure.trained_on for figure in figures(name)} <= {'', name}


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


def test_reads_a_line():
  (figure,) = published.read([_HEAD, _LINE])
  assert figure == Figure(
    'rain100l', 'PReNet', 37.48, 0.979, 'prenet', 'rain100l', None,
    'PReNet paper', '',
  )  # fmt: skip


@pytest.mark.parametrize(
  'line, message',
  [
    (_LINE.replace('37.48', 'high'), "'high'"),
    (_LINE.replace('37.48', 'nan'), 'psnr needs'),
    (_LINE.replace('37.48', '0'), 'psnr needs'),
    (_LINE.replace('0.979', '97.9'), 'ssim in'),
    (_LINE.replace(',,', ',-1,'), 'params_millions'),
    (_LINE.replace(',prenet,', ',Y,'), "protocol 'Y': known are rgb, "),
    (_LINE.replace('PReNet paper', ''), 'no source'),
    (_LINE.replace(',PReNet,', ',,'), 'no method'),
    (_LINE + ',more', 'needs 9 entries'),
    (_LINE[:-1], 'needs 9 entries'),
    (_LINE.replace('37.48', '37.49'), 'twice'),
  ],
)
def test_refuses_a_bad_line_and_says_which(line, message):
  with pytest.raises(ValueError, match=f'line 3: .*{re.escape(message)}'):
    published.read([_HEAD, _LINE, line])


def test_refuses_other_columns():
  with pytest.raises(ValueError, match='columns .*needs'):
    published.read([_HEAD.replace('psnr,ssim', 'ssim,psnr'), _LINE])


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


@pytest.mark.parametrize(
  'mixture, message',
  [
    ({'protocol': 'rgb'}, 'rain100l under rgb, rain100l under y$'),
    ({'protocol': ''}, 'rain100l under no stated one, rain100l under y$'),
    ({'dataset': 'spa'}, 'rain100l under y, spa under y$'),
  ],
)
def test_refuses_to_rank_mixtures(mixture, message):
  with pytest.raises(ValueError, match=message):
    ranking(_figures(30.0) + _figures(31.0, **mixture))


def test_refuses_to_rank_what_states_no_protocol():
  with pytest.raises(ValueError, match='rain100l under no stated one'):
    ranking(_figures(30.0, 31.0, protocol=''))


# DRSformer has 41.23 dB, PReNet the lowest, SWFormer-l the highest.
@pytest.mark.parametrize(
  'psnr, rank, position',
  [(45.0, 1, 0), (41.5, 3, 2), (41.2345, 3, 3), (30.0, 6, 5), (math.inf, 1, 0)],
)
def test_places_a_run_at_its_rank(psnr, rank, position):
  content = published.placement('rain200l', {'y': Score(psnr, 0.98)})
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
  content = published.placement('rain100l', scores, name='mine')
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
  text = published.format_placement('rain100l', scores, name='mine')
  ranked, others = text.split('Not ranked, as protocols do not compare')
  row = r'^(\d)\. +(\S+) +([\d.]+) / ([\d.]+) +(\w+)'
  assert re.findall(row, ranked, re.MULTILINE) == [
    ('1', 'MixDTPNet', '40.91', '0.991', 'rgb'),
    ('2', 'mine', '36.00', '0.970', 'rgb'),
    ('1', 'PReNet', '37.48', '0.979', 'prenet'),
    ('2', 'mine', '36.00', '0.970', 'prenet'),
  ]  # fmt: skip
  lines = [line for line in others.splitlines() if line.startswith('- ')]
  assert len(lines) == 10
  assert all('not stated' in line and line.endswith('[3]') for line in lines)
  assert '[2] PReNet paper (CVPR 2019)\n[3] MixDTPNet README' in others
  assert all(len(line) <= 80 for line in text.splitlines())
  # Of the protocols that a run has no scores of, the figures are listed too.
  text = published.format_placement('rain100l', {'y': Score(36.0, 0.97)})
  assert not re.search(r'^\d\.', text, re.MULTILINE)
  assert len(re.findall(r'^- ', text, re.MULTILINE)) == 12


def test_says_nothing_where_nothing_is_published():
  scores = {name: Score(36.0, 0.97) for name in PROTOCOLS}
  assert published.format_placement('photographs', scores) == ''
  assert published.placement('photographs', scores) == {}


def test_a_run_on_cut_images_says_so():
  assert published.run_name(1) == 'this run'
  assert published.run_name(32) == 'this run, images cut to multiples of 32'
