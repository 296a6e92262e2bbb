"""What was found, as a table and a file, and left out by prepare."""

import argparse
import dataclasses
import json
import subprocess
import sys

import pytest

from mixdtp_jax.cli import audit
from mixdtp_jax.data import findings
from mixdtp_jax.data.audit import table
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.findings import PairId
from mixdtp_jax.data.pairs import PairFiles
from tests.campaigns import prepared as campaign
from tests.helpers.rainy_photographs import draw, encode, photograph


@pytest.fixture
def audited():
  first, second = PairId('set', 'train', 'a'), PairId('set', 'test', 'a')
  return findings.Audit(
    {'set': {'train': 2, 'test': 1}},
    (
      findings.Finding('leak', (first, second), excluded=(first,)),
      *[findings.Finding('size', (second,), 'x')] * 7,
    ),
  )


def test_json_and_table(audited, tmp_path):
  findings.write_audit(audited, tmp_path / 'new' / 'audit.json')
  assert findings.read_audit(tmp_path / 'new' / 'audit.json') == audited
  counts, sizes, leaks = table.audit_tables(audited)
  assert counts.rows == [
    ('set', 'train', '2', 'leak', '1', '1', '1'),
    ('set', 'test', '1', 'size', '7', '1', '0'),
    ('set', 'test', '1', 'leak', '1', '1', '0'),
  ]
  assert sizes.rows == [('set/test/a: x',)] * 5
  assert sizes.note == 'and 2 more'
  assert leaks.rows == [('set/train/a, set/test/a',)]
  (tmp_path / 'bad.json').write_text('{"sizes": {}}')
  with pytest.raises(ValueError, match=r'bad\.json is no audit'):
    findings.read_audit(tmp_path / 'bad.json')


def test_damaged_audits_are_refused_by_name(tmp_path):
  outcomes = campaign.audits(200, tmp_path)
  assert outcomes['refused'] > 100
  (tmp_path / 'deep.json').write_text('[' * 100_000)
  with pytest.raises(ValueError, match=r'deep\.json is no audit'):
    findings.read_audit(tmp_path / 'deep.json')


def test_leaves_out_what_is_excluded(audited):
  a, b = (PairFiles(name, b'', b'') for name in 'ab')
  splits = {'train': [a, b], 'test': [a]}
  assert findings.leave_out('set', splits, audited) == {
    'train': [b],
    'test': [a],
  }
  with pytest.raises(ValueError, match='audit it again'):
    findings.leave_out('set', {'train': [a], 'test': [a]}, audited)
  with pytest.raises(ValueError, match='audit is of other sets'):
    findings.leave_out('other', splits, audited)
  everything = dataclasses.replace(audited, sizes={'set': {'train': 1}})
  with pytest.raises(ValueError, match='every pair of set train'):
    findings.leave_out('set', {'train': [a]}, everything)


@pytest.fixture
def leaking(tmp_path):
  """A folder of pairs: train 1 and 2, test 1, and 1 is the same in both."""
  coffee, chelsea = photograph('coffee.png'), photograph('chelsea.png')
  for name, split, *images in (
    ('1', 'train', draw(coffee, 1), coffee),
    ('2', 'train', draw(chelsea, 1), chelsea),
    ('1', 'test', draw(coffee, 7), coffee),
  ):
    for side, image in zip(('rainy', 'clean'), images, strict=True):
      path = tmp_path / 'source' / split / side / f'{name}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encode(image))
  return tmp_path / 'source'


def audit_sets(sets, path):
  audit.run(argparse.Namespace(sets=sets, json=str(path)))


def prepare(source, data_dir, exclude=''):
  return registry.prepare(
    'pairs', source=str(source), data_dir=str(data_dir), exclude=str(exclude)
  )


def test_prepares_without_what_is_excluded(leaking, tmp_path):
  output, data = tmp_path / 'audit.json', tmp_path / 'data'
  audit_sets([f'pairs={leaking}'], output)
  builder = prepare(leaking, data, output)
  names = {
    split: [registry.PreparedPairs(builder, split)[0]['name']]
    for split in ('train', 'test')
  }
  assert names == {'train': ['2'], 'test': ['1']}
  assert builder.info.splits['train'].num_examples == 1
  # The copy is taken as it is, but not for one of another audit.
  for exclude in ('', output):
    assert prepare(leaking, data, exclude).data_path == builder.data_path
  output.write_text(output.read_text().replace('leak', 'size'))
  with pytest.raises(ValueError, match='was prepared without what .* excludes'):
    prepare(leaking, data, output)
  prepare(leaking, tmp_path / 'whole')
  with pytest.raises(ValueError, match='was prepared without what .* excludes'):
    prepare(leaking, tmp_path / 'whole', output)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_own_pairs_without_a_split_are_a_finding(leaking, tmp_path, split):
  (leaking / split).rename(tmp_path / split)
  audit_sets([f'pairs={leaking}'], tmp_path / 'audit.json')
  found = findings.read_audit(tmp_path / 'audit.json')
  assert [f.kind for f in found.findings] == ['layout']
  assert f'expected, in {leaking}/{split}' in found.findings[0].note


def run(*arguments):
  arguments = ('-m', 'mixdtp_jax', *map(str, arguments))
  return subprocess.run(
    (sys.executable, *arguments), capture_output=True, text=True
  )


@pytest.mark.slow
def test_command(leaking, tmp_path):
  output = tmp_path / 'audit.json'
  result = run(
    'audit', f'pairs={leaking}', 'rain100l=/nowhere', '--json', output
  )
  assert result.returncode == 0, result.stderr
  assert not result.stderr
  assert 'leak: a scene in training and in a test split' in result.stdout
  content = json.loads(output.read_text())
  assert content['sizes'] == {
    'pairs': {'train': 2, 'test': 1},
    'rain100l': {},
  }
  assert [f['kind'] for f in content['findings']] == ['layout', 'leak']
  result = run(
    *('prepare', 'pairs', '--source', leaking, '--data_dir', tmp_path),
    *('--exclude', output),
  )
  assert 'pairs: train 1, test 1, in' in result.stdout, result.stderr


@pytest.mark.parametrize(
  'entries, message',
  [
    (['rain100l'], "'rain100l' is not NAME=FOLDER"),
    (['rain1000l=x'], "'rain1000l=x' is not NAME=FOLDER with a name of pairs"),
    (['pairs=x', 'pairs=y'], 'pairs is given twice'),
  ],
)
def test_command_refuses(entries, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    audit_sets(entries, tmp_path / 'audit.json')
  assert not list(tmp_path.iterdir())
