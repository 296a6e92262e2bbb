"""Suggestions for names that do not exist."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """Returns '; did you mean NEAREST?', or '' if no name is near."""
  near = difflib.get_close_matches(name, list(names), n=1)
  return f'; did you mean {near[0]}?' if near else ''
