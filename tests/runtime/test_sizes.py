import pytest

from mixdtp_jax.runtime.sizes import parse_bytes


@pytest.mark.parametrize(
  ('text', 'size'),
  [
    ('2GB', 2_000_000_000),
    ('2 GiB', 2 * 2**30),
    ('1.5g', 1_500_000_000),
    ('.5 MB', 500_000),
    ('800M', 800_000_000),
    ('1000000', 1_000_000),
    ('7b', 7),
  ],
)
def test_amounts(text, size):
  assert parse_bytes(text) == size


@pytest.mark.parametrize('text', ['', 'much', '-2GB', '2XB', '0', '0.1', '2 2'])
def test_other_texts_are_refused(text):
  with pytest.raises(ValueError, match='is no amount of memory, such as 2GB'):
    parse_bytes(text)


def test_a_small_number_needs_a_unit():
  with pytest.raises(ValueError, match=r"'2' has no unit: 2GB\?"):
    parse_bytes('2')
