"""Look for faults in data sets and for leaks between them.

  mixdtp audit rain100l=RAIN100L rain800=RAIN800 --json audit.json

Compares every image with all others. Findings are a report: the exit status is
0. mixdtp prepare --exclude audit.json leaves them out of training.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser
from mixdtp_jax.runtime.files import local_path
from mixdtp_jax.runtime.options import did_you_mean
from mixdtp_jax.runtime.tables import show


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    'sets',
    nargs='+',
    metavar='NAME=FOLDER',
    help='a data set, such as rain100l or pairs, and its original files',
  )
  text = 'file to write, with every finding'
  kind = options.out_file
  options.add(parser, 'json', 'audit.json', text, type=kind, metavar='FILE')


def run(args: argparse.Namespace) -> None:
  """Audits the sets, prints a table and writes every finding."""
  from mixdtp_jax.data.audit.relations import audit
  from mixdtp_jax.data.audit.table import audit_tables
  from mixdtp_jax.data.findings import write_audit

  found = audit(*_find(args.sets))
  write_audit(found, args.json)
  show(*audit_tables(found), f'All findings: {args.json}')


def _find(sources: Sequence[str]) -> tuple[dict, dict, list]:
  """Returns pairs and published counts by set, and findings of layout."""
  from mixdtp_jax.data.datasets.registry import DATASETS
  from mixdtp_jax.data.findings import Finding, PairId

  sets, published, layout = {}, {}, []
  for entry in sources:
    name, equals, source = entry.partition('=')
    source = local_path(source)
    if not equals or name not in DATASETS:
      raise ValueError(
        f'{entry!r} is not NAME=FOLDER with a name of {", ".join(DATASETS)}'
        f'{did_you_mean(name, DATASETS)}'
      )
    if name in published:
      raise ValueError(f'{name} is given twice: audit its folders one by one')
    published[name] = DATASETS[name].counts
    try:
      # The counts show what a published set lacks; own pairs have none.
      partial = bool(published[name])
      splits = DATASETS[name].find_pairs(Path(source), partial)
      sets[name] = {split: list(pairs) for split, pairs in splits.items()}
    except (OSError, ValueError) as error:
      layout.append(Finding('layout', (PairId(name, '', ''),), str(error)))
  return sets, published, layout
