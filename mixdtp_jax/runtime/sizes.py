"""Amounts of memory as people write them."""

import re

_SIZE = re.compile(r'(\d+\.?\d*|\.\d+)\s*(?:([kmgt])(i?))?b?', re.IGNORECASE)


def parse_bytes(text: str) -> int:
  """Returns the bytes of an amount such as 2GB, 1.5 GiB, 800M or 1000000.

  ValueError if it is none, 0, or below 1000000 without a unit.
  """
  size = 0
  if match := _SIZE.fullmatch(text.strip()):
    number, unit, binary = match.groups()
    power = 'kmgt'.index(unit.lower()) + 1 if unit else 0
    size = int(float(number) * (1024 if binary else 1000) ** power)
  if not size:
    raise ValueError(f'{text!r} is no amount of memory, such as 2GB or 800MB')
  if size < 10**6 and not text.strip()[-1].isalpha():
    raise ValueError(f'{text!r} has no unit: {text.strip()}GB?')
  return size
