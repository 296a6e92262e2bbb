"""The option language of all commands: argparse and --config.OPTION=VALUE."""

import argparse
import os
import re
import shlex
from collections.abc import Sequence

from mixdtp_jax.runtime.options import did_you_mean


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line with the nearest name."""

  def __init__(self, **kwargs):
    """Takes the arguments of argparse.ArgumentParser."""
    kwargs.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    super().__init__(allow_abbrev=False, **kwargs)

  def parse_known_args(self, args=None, namespace=None):
    """Parses words; --config.OPTION VALUE goes to `overrides`, as OPTION=VALUE.

    A parser takes these if `add_config` was called for it.
    """
    if self._subparsers is not None:  # the words are a command's own
      return super().parse_known_args(args, namespace)
    words, overrides = self._split(args)
    namespace, rest = super().parse_known_args(words, namespace)
    for action in self._get_positional_actions():
      # Argparse takes no more of them behind an option.
      while action.nargs == '+' and rest and not rest[0].startswith('-'):
        getattr(namespace, action.dest).append(rest.pop(0))
    if rest:
      self.error(f'unexpected argument {rest[0]}')
    if self.takes_config:
      namespace.overrides = overrides
    return namespace, rest

  takes_config = False

  def _split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words without --config.OPTION=VALUE, and these."""
    rest, overrides, left = [], [], iter(words)
    for word in left:
      name, equals, value = word.partition('=')
      if word == '--':
        rest += [word, *left]
      elif self.takes_config and name.startswith('--config.'):
        if not equals:
          value = next(left, '--')
          if value.startswith('--'):
            self.error(f'{name} needs a value, such as {name}=VALUE')
        overrides.append(f'{name.removeprefix("--config.")}={value}')
      elif name.startswith('--') and name not in self._option_string_actions:
        nearest = did_you_mean(name, self._option_string_actions)
        self.error(f'unknown option {name}{nearest}')
      else:
        rest.append(word)
    return rest, overrides

  def _check_value(self, action, value):
    try:
      super()._check_value(action, value)
    except argparse.ArgumentError as error:
      if action.dest == 'command' and os.path.exists(value):
        self.error(f'to restore {value}: mixdtp derain {shlex.quote(value)}')
      error.message += did_you_mean(str(value), map(str, action.choices))
      raise

  def error(self, message: str):
    """Exits with status 2 and one line on stderr."""
    example = (self.description or '').partition(f'\n  {self.prog} ')[2]
    if 'are required: ' in message and example:
      usage = re.split(r'\n|  ', example)[0]
      message += f', as in: {self.prog} {usage}'
    self.exit(2, f'error: {message} (see {self.prog} --help)\n')
