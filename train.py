"""Trains a network: flags -> mixdtp_jax.training.loop.

python train.py --config=configs/demo.py --workdir=runs/demo

One command on each host of a TPU slice, or under srun or mpirun, trains on all
of them; elsewhere the last three flags say who is who.
"""

from mixdtp_jax.runtime import huge_pages

if __name__ == '__main__':
  huge_pages.use_huge_pages()  # before what takes time to import

from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.console import set_up_logging
from mixdtp_jax.training.loop import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file of configs/; --config.KNOB=VALUE changes a knob.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; the same command continues it.'
)
_JOIN_HOSTS = hosts.define_flags()
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv: Sequence[str]) -> None:
  """Trains as the flags say."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  _JOIN_HOSTS()
  set_up_logging()
  train_and_evaluate(_CONFIG.value, _WORKDIR.value)


if __name__ == '__main__':
  app.run(main)
