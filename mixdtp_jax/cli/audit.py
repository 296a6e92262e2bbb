"""The command: data sets as published in, a table and a JSON file out."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mixdtp_jax.data.audit.relations import audit
from mixdtp_jax.data.audit.table import format_audit
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.findings import Audit, Finding, PairId, write_audit
from mixdtp_jax.runtime import console


def run(sources: Sequence[str], path: str) -> None:
  """Audits sets, prints the table and writes the JSON.

  Args:
    sources: 'NAME=FOLDER', the name of a data set and its files as published.
    path: of the JSON file.

  Raises:
    ValueError: an entry is not so, names an unknown set, or one twice.
  """
  sets, published, layout = _find(sources)
  total = sum(len(p) for splits in sets.values() for p in splits.values())
  found = audit(sets, published, console.progress('audited', total))
  not_laid_out = {finding.pairs[0].dataset: {} for finding in layout}
  found = Audit(found.sizes | not_laid_out, (*layout, *found.findings))
  write_audit(found, path)
  print(format_audit(found))
  print(f'\neverything: {path}')


def _find(sources: Sequence[str]) -> tuple[dict, dict, list[Finding]]:
  """The pairs and published counts of each set, and those not laid out so."""
  sets, published, layout = {}, {}, []
  for entry in sources:
    name, equals, source = entry.partition('=')
    if not equals or name not in registry.DATASETS:
      raise ValueError(
        f'{entry!r} is not NAME=FOLDER with a name of '
        f'{", ".join(registry.DATASETS)}'
      )
    if name in published:
      raise ValueError(f'{name} is given twice: audit its folders one by one')
    with tempfile.TemporaryDirectory() as nowhere:  # nothing is prepared
      builder = registry.DATASETS[name](
        source=source, data_dir=nowhere, partial=True
      )
    published[name] = builder.counts
    try:
      splits = builder.find_pairs(Path(source))
      sets[name] = {split: list(pairs) for split, pairs in splits.items()}
    except (OSError, ValueError) as error:
      layout.append(Finding('layout', (PairId(name, '', ''),), str(error)))
  return sets, published, layout
