"""Tables in a pipe and on a terminal."""

import os
import pty
import subprocess
import sys

import pytest

from mixdtp_jax.runtime.tables import Table, show
from tests.helpers.terminal import read_all

_SCORES = Table(
  'Scores',
  ('protocol', 'PSNR', 'files', 'gain'),
  [
    ('rgb', '37.48', '1 of 2', 'mse'),
    ('[bold]y[/bold] :smile:', None, '+3', '1'),
    ('雨 ' + 'long ' * 40, 'inf', '', '2\n3'),
  ],
  note='PSNR in dB.',
)


def test_piped_tables_are_for_programs(capsys):
  show(_SCORES, 'below')
  text = capsys.readouterr().out
  assert text == f'{_SCORES}\n\nbelow\n'
  title, head, *rows, note, _, _ = text.splitlines()
  assert (title, note) == ('Scores', 'PSNR in dB.')
  cells = [[c.strip() for c in row.split('  ') if c.strip()] for row in rows]
  assert head.split() == list(_SCORES.head)
  assert cells == [
    ['rgb', '37.48', '1 of 2', 'mse'],
    ['[bold]y[/bold] :smile:', '-', '+3', '1'],
    ['雨 ' + ('long ' * 40).strip(), 'inf', '-', '2 3'],
  ]


def test_columns_of_numbers_are_aligned_right():
  rows = [('x', '1 of 2', 'mse'), ('y', '+3', '1')]
  lines = str(Table('', ('a', 'files', 'gain'), rows)).splitlines()
  assert lines == ['a   files  gain', 'x  1 of 2  mse', 'y      +3  1']
  lines = str(Table('', ('1', 'n'), [('2', '10'), ('300', '-.5')])).splitlines()
  assert lines == ['1      n', '2     10', '300  -.5']


def test_tables_without_a_head_or_rows():
  table = Table('Memory', ('', ''), [('state', '3 GiB'), ('time', '1.5 s')])
  assert str(table) == 'Memory\nstate  3 GiB\ntime   1.5 s'
  assert str(Table('', ('a', 'b'), [])) == 'a  b'
  with pytest.raises(ValueError, match='zip'):
    str(Table('', ('a', 'b'), [('1',)]))


def test_a_terminal_shows_every_word():
  program = (
    'from tests.runtime.test_tables import _SCORES, show; show(_SCORES, "end")'
  )
  ours, theirs = pty.openpty()
  subprocess.run(
    [sys.executable, '-c', program],
    stdout=theirs,
    env=os.environ | {'COLUMNS': '60', 'TERM': 'xterm'},
    check=True,
  )
  os.close(theirs)
  text = read_all(ours)
  assert '\x1b[1mScores' in text and '─' in text
  assert '[bold]y[/bold] :smile:' in text
  assert text.count('long') == 40 and text.rstrip().endswith('end')
