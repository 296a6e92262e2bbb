"""Image deraining: restores pictures, trains and scores networks.

Every command shows its options with mixdtp COMMAND --help.
"""

import importlib
import sys
from collections.abc import Sequence

from mixdtp_jax import __version__
from mixdtp_jax.cli import errors
from mixdtp_jax.cli.parser import Parser
from mixdtp_jax.runtime import console, huge_pages

# The module of each command has `add_arguments` and `run`.
COMMANDS = {
  name: importlib.import_module(f'mixdtp_jax.cli.{name}')
  for name in (
    'derain', 'serve', 'train', 'eval', 'prepare', 'audit', 'convert',
    'export', 'rain', 'runs', 'compare', 'bench', 'plan',
  )
}  # fmt: skip
_USES_HUGE_PAGES = ('train', 'eval', 'bench')


def make_parser() -> Parser:
  """Returns the parser of all commands."""
  parser = Parser(prog='mixdtp', description=__doc__)
  parser.add_argument(
    '--version', action='version', version=f'mixdtp {__version__}'
  )
  commands = parser.add_subparsers(
    dest='command', required=True, metavar='COMMAND'
  )
  for name, module in COMMANDS.items():
    summary = (module.__doc__ or '').partition('\n')[0].rstrip('.')
    command = commands.add_parser(
      name, help=summary, description=module.__doc__
    )
    module.add_arguments(command)
    command.set_defaults(run=module.run)
  return parser


def run_command(words: Sequence[str], *, own_process: bool = False) -> int:
  """Runs a command, given by its name and arguments; returns the exit status.

  It is 0, or 1 after an error that a user can cause, of which one line is
  printed; 130 after Ctrl-C. SystemExit after --help, and with status 2 if the
  words do not fit. If `own_process`, the process may be restarted, to have huge
  pages.
  """
  parser = make_parser()
  if not words:
    parser.print_help(sys.stderr)
    raise SystemExit(2)
  args = parser.parse_args(words)
  if own_process and args.command in _USES_HUGE_PAGES:
    huge_pages.use_huge_pages()
  console.set_up_logging()
  try:
    return args.run(args) or 0
  except KeyboardInterrupt:
    console.show('')
    print('stopped by Ctrl-C', file=sys.stderr)
    return 130
  except Exception as error:
    console.show('')
    line = errors.explain(error, args.command)
    if line is None:
      raise
    print(f'error: {line}', file=sys.stderr)
    return 1


def main(*command: str) -> None:
  """Runs the program: `command` and the arguments of the command line."""
  console.set_up_streams()
  sys.exit(run_command([*command, *sys.argv[1:]], own_process=True))
