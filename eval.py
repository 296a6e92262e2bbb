"""Scores a network on a data set: flags -> mixdtp_jax.evaluation.score.

python eval.py --weights=runs/mine --out=results
python eval.py --weights=mixdtp.pth --steps=3 --folder=pairs --out=results
"""

from mixdtp_jax.runtime import huge_pages

if __name__ == '__main__':
  huge_pages.use_huge_pages()  # before what takes time to import

import os
from collections.abc import Sequence

import jax
from absl import app, flags

from mixdtp_jax.data.datasets.registry import DATASETS, open_split
from mixdtp_jax.data.eval_batches import eval_batches
from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.data.pairs import CroppedPairs, Pairs
from mixdtp_jax.evaluation import images, published, results
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.score import evaluate, mean_row
from mixdtp_jax.models.config import as_mapping
from mixdtp_jax.models.factory import final_image, make_network
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.console import progress, set_up_logging
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.run import load_run_config

_WEIGHTS = flags.DEFINE_string(
  'weights',
  None,
  'Folder of a training run, folder of converted weights, or .pth file.',
  required=True,
)
_STEPS = flags.DEFINE_integer(
  'steps', None, 'Recurrent steps of a .pth file, which does not record them.'
)
_DATA = flags.DEFINE_enum(
  'data',
  None,
  sorted(DATASETS),
  "Data set; by default the training run's, else pairs.",
)
_SOURCE = flags.DEFINE_string(
  'source', None, "Folder of the data set as published; as for 'data'."
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, "Folder of the prepared copy; as for 'data'."
)
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the data set.')
_FOLDER = flags.DEFINE_string(
  'folder', None, 'Folder with rainy/ and clean/, instead of a data set.'
)
_PROTOCOLS = flags.DEFINE_list(
  'protocols', list(PROTOCOLS), 'Protocols of PSNR and SSIM.'
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size',
  None,
  'Images of equal size at once; by default one for each device.',
  lower_bound=1,
)
_CROP_MULTIPLE = flags.DEFINE_integer(
  'crop_multiple',
  1,
  'Cut images from the top left to multiples of this, in pixels; 1 keeps them '
  'whole, 32 is as published.',
  lower_bound=1,
)
_OUT = flags.DEFINE_string(
  'out', None, 'Folder for tables and images; without it, only print.'
)

_JOIN_HOSTS = hosts.define_flags()


def main(argv: Sequence[str]) -> None:
  """Evaluates as the flags say, prints the table and what was written."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  _JOIN_HOSTS()
  set_up_logging()
  pairs, source = _open_pairs()
  pairs = CroppedPairs(pairs, _CROP_MULTIPLE.value)
  cfg, params = load_weights(_WEIGHTS.value, steps=_STEPS.value)
  panels = images.Panels(pairs, _OUT.value)
  rows = evaluate(
    make_restore(final_image(cfg), params, multiple=make_network(cfg).multiple),
    eval_batches(pairs, batch_size=_BATCH_SIZE.value or jax.device_count()),
    _PROTOCOLS.value,
    save=panels.add if _OUT.value and hosts.is_first() else None,
    progress=progress('Evaluated', len(pairs)),
  )
  if not hosts.is_first():
    return
  print(results.format_table(rows))
  # Published figures are of test splits.
  dataset = source.get('name', '') if _SPLIT.value == 'test' else ''
  scores = mean_row(rows).restored
  name = published.run_name(_CROP_MULTIPLE.value)
  if text := published.format_placement(dataset, scores, name):
    print('\n' + text)
  if _OUT.value:
    context = {
      'weights': _WEIGHTS.value,
      'model': as_mapping(cfg),
      'data': source,
      'crop_multiple': _CROP_MULTIPLE.value,
    }
    for path in results.write_results(
      _OUT.value,
      rows,
      panels.image,
      context,
      published.placement(dataset, scores, name),
    ):
      print(path)
    print(os.path.join(_OUT.value, 'images'))


def _open_pairs() -> tuple[Pairs, dict[str, str]]:
  """The pairs that the flags name, and what they are for the record."""
  if _FOLDER.value:
    if _DATA.value or _SOURCE.value or _DATA_DIR.value:
      raise app.UsageError(
        '--folder needs no --data, --source or --data_dir: drop one or other'
      )
    return open_folder(_FOLDER.value), {'folder': _FOLDER.value}
  name, source, data_dir = _DATA.value or 'pairs', '', ''
  try:
    run = load_run_config(_WEIGHTS.value).data
  except FileNotFoundError:  # weights alone: the flags have to say it all
    run = None
  if run is not None and _DATA.value in (None, run.name):
    name, source = run.name, run.source
    data_dir = run.data_dir or os.path.join(_WEIGHTS.value, 'data')
  source = source if _SOURCE.value is None else _SOURCE.value
  data_dir = data_dir if _DATA_DIR.value is None else _DATA_DIR.value
  if not data_dir:
    raise app.UsageError(
      f'--data={name} needs --data_dir, the folder of its prepared copy; or '
      'evaluate a plain folder of pairs with --folder'
    )
  pairs = hosts.in_turn(
    lambda: open_split(
      name, source=source, data_dir=data_dir, split=_SPLIT.value
    )
  )
  return pairs, {'name': pairs.name, 'source': source, 'split': _SPLIT.value}


if __name__ == '__main__':
  app.run(main)
