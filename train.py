"""Trains a network, as `mixdtp train` does: see --help."""

from mixdtp_jax.cli.main import main

if __name__ == '__main__':
  main('train')
