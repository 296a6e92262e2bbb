"""The program: python -m mixdtp_jax is the same as mixdtp."""

from mixdtp_jax.cli.main import main

if __name__ == '__main__':
  main()
