"""What a program showed on a pseudo-terminal."""

import os


def read_all(terminal: int) -> str:
  """Reads until the other end is closed, and closes this one."""
  shown = b''
  try:
    while part := os.read(terminal, 4096):
      shown += part
  except OSError:  # how Linux tells that the other end is closed
    pass
  os.close(terminal)
  return shown.decode()
