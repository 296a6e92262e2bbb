"""Safetensors files: written, read, foreign, damaged and hostile."""

import dataclasses
import functools
import json
import os
import pathlib
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from mixdtp_jax.models.config import (
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
)
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights.convert import convert
from mixdtp_jax.weights.load import load_params, load_weights
from mixdtp_jax.weights.safetensors_file import (
  read_notes,
  write_safetensors,
)
from mixdtp_jax.weights.state_dict import to_torch

_UNET = {
  'width': 4,
  'encoder_blocks': (1, 2, 1, 1),
  'decoder_blocks': (2, 1, 1),
  'refinement_blocks': 1,
  'heads': (1, 2, 2, 4),
}
MIXDTP = MixDTPConfig(
  **_UNET, recurrent_width=4, steps=2, coupling=False, ffn_expansion=2.37
)
NETWORKS = (
  MIXDTP,
  dataclasses.replace(MIXDTP, steps=0, detail_dilation=False),
  RestormerConfig(**_UNET, remat='blocks'),
  PReNetConfig(recurrent_width=4, steps=2),
)


@functools.cache
def params_of(cfg):
  """Returns parameters in which all numbers differ."""
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: random.standard_normal(x.shape, x.dtype), abstract_params(cfg)
  )


@pytest.fixture
def path(tmp_path):
  """A file of MIXDTP."""
  path = tmp_path / 'model.safetensors'
  write_safetensors(path, MIXDTP, params_of(MIXDTP))
  return path


@pytest.mark.parametrize('cfg', NETWORKS, ids=lambda cfg: cfg.name)
def test_every_network_comes_back_bit_for_bit(tmp_path, cfg):
  path = tmp_path / 'new' / 'model.safetensors'
  write_safetensors(path, cfg, params_of(cfg))
  found, params = load_weights(path)
  assert found == cfg
  jax.tree.map(np.testing.assert_array_equal, params, params_of(cfg))
  assert list(path.parent.iterdir()) == [path]
  plain = tmp_path / 'plain'
  plain.write_bytes(b'')
  assert path.stat().st_mode == plain.stat().st_mode


def test_the_file_holds_the_published_names_and_layouts(path):
  saved = load_file(path)
  expected = to_torch(params_of(MIXDTP), MIXDTP)
  assert saved.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(saved[name], value)


def test_float16_is_rounded_once_and_read_as_float32(tmp_path):
  path = tmp_path / 'half.safetensors'
  write_safetensors(path, MIXDTP, params_of(MIXDTP), dtype='float16')
  _, params = load_weights(path)

  def check(got, saved):
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, saved.astype(np.float16))

  jax.tree.map(check, params, params_of(MIXDTP))
  assert all(v.dtype == np.float16 for v in load_file(path).values())


@pytest.mark.parametrize(
  ('value', 'dtype'), [(70000.0, 'float16'), (np.nan, 'float32')]
)
def test_only_finite_values_are_written(tmp_path, value, dtype):
  params = jax.tree.map(lambda x: np.full_like(x, value), params_of(MIXDTP))
  with pytest.raises(ValueError, match=f'not finite as {dtype}'):
    write_safetensors(tmp_path / 'x.safetensors', MIXDTP, params, dtype=dtype)
  assert not list(tmp_path.iterdir())


def test_notes_go_along_and_others_are_refused(tmp_path):
  notes = {'recipe': 'general', 'licence': 'CC BY 4.0, naïve'}
  path = tmp_path / 'model.safetensors'
  write_safetensors(path, MIXDTP, params_of(MIXDTP), notes=notes)
  assert read_notes(path) == notes
  convert(path, tmp_path / 'half.safetensors', dtype='float16')
  assert read_notes(tmp_path / 'half.safetensors') == notes
  with pytest.raises(ValueError, match='unknown notes author, model: choose'):
    write_safetensors(
      path, MIXDTP, params_of(MIXDTP), notes={'model': '', 'author': ''}
    )


@pytest.mark.parametrize('end', range(1, 4000, 800))
def test_a_changed_bit_of_a_tensor_is_seen(path, end):
  values = bytearray(path.read_bytes())
  values[-end] ^= 1
  path.write_bytes(values)
  with pytest.raises(ValueError, match=f'^{path} is damaged'):
    load_weights(path)


def test_changed_notes_are_seen_and_files_without_digest_are_read(path):
  with safetensors.safe_open(path, framework='np') as file:
    metadata = file.metadata()
  save_file(load_file(path), path, metadata | {'results': '40 dB'})
  with pytest.raises(ValueError, match=f'^{path} is damaged'):
    load_weights(path)
  del metadata['digest']
  save_file(load_file(path), path, metadata)
  assert load_weights(path)[0] == MIXDTP


@pytest.mark.parametrize('dtype', ['float64', 'float16', 'bfloat16'])
def test_a_file_of_pytorch_is_read_by_its_names_and_shapes(tmp_path, dtype):
  tensors = {
    f'module.{name}': value.astype(np.dtype(dtype))
    for name, value in to_torch(params_of(MIXDTP), MIXDTP).items()
  }
  path = tmp_path / 'foreign.safetensors'
  save_file(tensors, path, {'format': 'pt'})
  cfg, params = load_weights(path)
  # No shape tells these three; the factor gives the same hidden channels.
  assert cfg == dataclasses.replace(
    MIXDTP, steps=3, coupling=True, ffn_expansion=cfg.ffn_expansion
  )
  expected = jax.tree.map(
    lambda x: x.astype(np.dtype(dtype)).astype(np.float32), params_of(MIXDTP)
  )
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  load_params(path, dataclasses.replace(MIXDTP, coupling=True))


@pytest.mark.torch
def test_pytorch_loads_the_file(path):
  import torch
  from safetensors.torch import load_file as load_tensors

  from mixdtp_jax.torch_reference.network import make_torch_network

  network = make_torch_network(MIXDTP)
  network.load_state_dict(load_tensors(path), strict=True)
  for name, value in to_torch(params_of(MIXDTP), MIXDTP).items():
    np.testing.assert_array_equal(network.state_dict()[name].numpy(), value)
  assert isinstance(network, torch.nn.Module)


def raw(header, data=b''):
  """Returns a file of a header (JSON or bytes) and data."""
  if not isinstance(header, bytes):
    header = json.dumps(header).encode()
  return struct.pack('<Q', len(header)) + header + data


def tensor(shape, size, dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': [0, size]}


HOSTILE = {
  'empty': b'',
  'text': b'no weights at all',
  'a header of 8 EiB': struct.pack('<Q', 2**63) + b'{}',
  'a header of 90 MB that is not there': struct.pack('<Q', 90 << 20) + b'{}',
  'no JSON': raw(b'{'),
  'no UTF-8': raw(b'\xff\xfe'),
  'a deep header': raw(b'[' * 100_000),
  'a header that is a list': raw([]),
  'metadata that are no text': raw({'__metadata__': {'a': 1}}),
  'a long format': raw({'__metadata__': {'mixdtp_jax_format': '1' * 5000}}),
  'no tensors': raw({}),
  'a shape that overflows': raw({'a': tensor([2**62, 8], 4)}, b'\0' * 4),
  'a negative size': raw({'a': tensor([-1], 0)}),
  'less data than the shape': raw({'a': tensor([2], 4)}, b'\0' * 4),
  'data that nobody has': raw({'a': tensor([1], 4)}, b'\0' * 9),
  'integers': raw({'a': tensor([1], 8, 'I64')}, b'\0' * 8),
  'bytes of floats': raw({'a': tensor([2], 2, 'F8_E4M3')}, b'\0' * 2),
  'foreign names': raw({'layer.weight': tensor([1], 4)}, b'\0' * 4),
  'a name, no shape': raw({'conv_final.weight': tensor([], 4)}, b'\0' * 4),
  'a huge empty tensor': raw({'conv_final.weight': tensor([3, 2**40, 0], 0)}),
  'a huge empty recurrence': raw({'conv0.0.weight': tensor([2**40, 0], 0)}),
  'no width': raw({'output.weight': tensor([3, 0, 3, 3], 0)}),
}


@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_line_with_its_name(tmp_path, content):
  path = tmp_path / 'hostile.safetensors'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f'^{path}') as error:
    load_weights(path)
  assert '\n' not in str(error.value)


def _rewritten(path, change_tensors=None, **metadata):
  """Writes a file again with changed tensors or metadata, and no digest."""
  with safetensors.safe_open(path, framework='np') as file:
    old = file.metadata()
  tensors = load_file(path)
  if change_tensors:
    change_tensors(tensors)
  changed = old | {'digest': ''} | metadata
  save_file(tensors, path, {k: v for k, v in changed.items() if v})


def _model(**changes):
  fields = {'name': 'mixdtp', **dataclasses.asdict(MIXDTP)} | changes
  return json.dumps(fields)


@pytest.mark.parametrize(
  ('metadata', 'message'),
  [
    ({'mixdtp_jax_format': '2'}, 'made by a newer version .*update mixdtp_jax'),
    ({'mixdtp_jax_format': 'two'}, "format 'two' is not a format number"),
    ({'mixdtp_jax_format': '-1'}, "format '-1' is not a format number"),
    ({'model': ''}, 'do not name a network'),
    ({'model': '{'}, 'do not name a network'),
    ({'model': '[' * 100_000}, 'do not name a network'),
    ({'model': '[]'}, 'do not name a network'),
    ({'model': '7'}, 'do not name a network'),
    ({'model': _model(name='resnet')}, "model.name = 'resnet'"),
    ({'model': _model(nonsense=1)}, 'unknown option model.nonsense'),
    ({'model': _model(width='4')}, "model.width = '4': needs a whole number"),
    ({'model': _model(width=10**400)}, 'model.width = 10+: needs a whole'),
    ({'model': _model(name=[])}, r'model.name = \[\]'),
    ({'model': _model(width=True)}, 'model.width = True: needs a whole'),
    ({'model': _model(ffn_expansion=1e400)}, 'ffn_expansion = inf: needs'),
    ({'model': _model(ffn_expansion=-1)}, 'ffn_expansion = -1.*: needs'),
    ({'model': _model(heads=[1, 2, 2])}, 'model.heads = .*: needs 4'),
    ({'model': _model(width=8)}, 'width is 8 in the metadata, 4 by'),
    (
      {'model': _model(encoder_blocks=[10**9, 2, 1, 1])},
      'encoder_blocks = .*: needs 4 whole numbers, from 1 to 1000',
    ),
    ({'model': _model(ffn_expansion=9.0)}, 'ffn_expansion is 9.0 in the'),
    ({'model': _model(steps=0)}, 'steps is 0 in the metadata, some by'),
    (
      {
        'model': json.dumps(
          {'name': 'prenet', 'recurrent_width': 4, 'steps': 6}
        )
      },
      'name is prenet in the metadata, mixdtp by the tensors',
    ),
  ],
)
def test_metadata_that_do_not_fit_are_refused(path, metadata, message):
  _rewritten(path, **metadata)
  with pytest.raises(ValueError, match=message) as error:
    load_weights(path)
  assert str(error.value).startswith(str(path))
  assert '\n' not in str(error.value)


def _spoil(name, change):
  return lambda tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.pop('outc.0.ffn.dwconv.weight'), '1 missing .outc.0.ffn'),
    (lambda t: t.update(more=np.zeros(1)), r'1 unknown \(more\)'),
    (_spoil('conv_i.0.bias', lambda x: x[:3]), r'conv_i.0.bias has shape \(3,'),
    (_spoil('conv_i.0.bias', lambda x: x * np.nan), 'gates/bias .* not finite'),
    (
      _spoil('conv_i.0.bias', lambda x: np.full(x.shape, 1e300)),
      'gates/bias .* not finite',
    ),
  ],
)
def test_tensors_that_do_not_fit_are_refused(path, change, message):
  _rewritten(path, change)
  with pytest.raises(ValueError, match=message) as error:
    load_weights(path)
  assert str(error.value).startswith(str(path))


def test_every_cut_and_200_flipped_bits_load_whole_or_fail_by_name(path):
  whole = path.read_bytes()
  header = 8 + struct.unpack('<Q', whole[:8])[0]
  random = np.random.default_rng(0)
  damaged = [whole[:cut] for cut in random.integers(0, len(whole), 50)]
  for bit in random.integers(0, 8 * header, 200):
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    damaged.append(bytes(flipped))
  failed = 0
  for content in damaged:
    path.write_bytes(content)
    try:
      cfg, _ = load_weights(path)
    except ValueError as error:
      assert str(path) in str(error)
      assert '\n' not in str(error)
      failed += 1
    else:
      assert isinstance(cfg, MixDTPConfig)
  assert failed > 200


def test_a_path_of_any_bytes(tmp_path):
  folder = pathlib.Path(
    os.fsdecode(os.fsencode(tmp_path) + b'/\xff[1] e\xcc\x81')
  )
  path = folder / 'model.safetensors'
  write_safetensors(path, MIXDTP, params_of(MIXDTP))
  assert load_weights(path)[0] == MIXDTP


def test_reading_one_imports_neither_orbax_nor_torch_nor_tensorflow(path):
  statement = (
    'import sys\n'
    'from mixdtp_jax.weights.load import load_weights\n'
    f'load_weights({str(path)!r})\n'
    "print({'orbax', 'torch', 'tensorflow'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, '-c', statement],
    capture_output=True,
    text=True,
    check=True,
    cwd=path.parent,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert done.stdout == 'set()\n'
