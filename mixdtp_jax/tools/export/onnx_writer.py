"""The networks as ONNX models, written with onnx.helper.

The modules of models/ say what is computed; here each has a counterpart in
ONNX's operators. Images are (B, C, H, W).
"""

from collections.abc import Mapping, Sequence

import flax.traverse_util
import numpy as np
import onnx
from onnx import helper, numpy_helper

from mixdtp_jax.models.config import (
  AnyConfig,
  PReNetConfig,
  RestormerConfig,
  UNetConfig,
)
from mixdtp_jax.models.shapes import RESIDUAL_BLOCKS
from mixdtp_jax.weights.state_dict import to_layout

# The first with Gelu, and the format of ONNX 1.16 and 1.17: older runtimes read
# nothing newer.
_OPSET = 20
_IR_VERSION = 10


def onnx_model(
  cfg: AnyConfig, params: dict, metadata: Mapping[str, str]
) -> onnx.ModelProto:
  """Makes an ONNX model that restores images of any number and size.

  Its input `rainy` and output `restored` are float32 (batch, 3, height, width)
  in [0, 1]. `metadata` goes into the model's `metadata_props`.
  """
  writer = _Writer(cfg, params)
  writer.restore('rainy', 'restored', cfg.multiple)
  shape: list[str | int | None] = ['batch', 3, 'height', 'width']
  rainy, restored = (
    helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    for name in ('rainy', 'restored')
  )
  constants = list(writer.constants.values())
  graph = helper.make_graph(
    writer.nodes, cfg.name, [rainy], [restored], constants
  )
  model = helper.make_model(
    graph,
    opset_imports=[helper.make_opsetid('', _OPSET)],
    ir_version=_IR_VERSION,
    producer_name='mixdtp_jax',
  )
  helper.set_model_props(model, dict(metadata))
  onnx.checker.check_model(model, full_check=True)
  return model


class _Writer:
  """A growing graph.

  Methods take names of tensors, and `at`, the path of a module's parameters.
  They add nodes and return the name of the result.
  """

  def __init__(self, cfg: AnyConfig, params: dict):
    self.nodes: list[onnx.NodeProto] = []  # in the order of computation
    self.constants: dict[str, onnx.TensorProto] = {}  # by name
    self._cfg = cfg
    self._weights = _in_onnx_layout(params)
    self._tensors = 0

  def _add(
    self,
    op: str,
    *inputs: str | np.ndarray | np.generic,
    outputs: int | Sequence[str] = 1,
    **attributes,
  ):
    """Adds a node; arrays among its inputs become constants."""
    names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
    if isinstance(outputs, int):
      first, self._tensors = self._tensors, self._tensors + outputs
      outputs = [f't{first + i}' for i in range(outputs)]
    self.nodes.append(helper.make_node(op, names, outputs, **attributes))
    return outputs[0] if len(outputs) == 1 else outputs

  def _constant(self, value: np.ndarray | np.generic, name: str = '') -> str:
    """Adds a constant, once for each name; small ones are named by value."""
    name = name or f'{value.dtype}{list(value.shape)}{value.ravel().tolist()}'
    if name not in self.constants:
      self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
    return name

  def _weight(self, name: str) -> str:
    return self._constant(self._weights[name], name)

  def restore(self, rainy: str, restored: str, multiple: int) -> None:
    """Adds the network, and what makes it fit all sizes."""
    x, sizes = rainy, {}
    for axis in (2, 3) if multiple > 1 else ():
      sizes[axis] = self._add('Shape', rainy, start=axis, end=axis + 1)
      x = self._mirrored(x, sizes[axis], axis, multiple)
    x = self._network(x)
    for axis, size in sizes.items():
      x = self._add('Slice', x, _ints(0), size, _ints(axis))
    self._add('Clip', x, np.float32(0), np.float32(1), outputs=[restored])

  def _mirrored(self, x, size, axis, multiple):
    """Reflects an axis at its end, as often as needed, up to a multiple.

    ONNX's own padding reflects once only.
    """
    more = self._add('Mod', self._add('Neg', size), _ints(multiple))
    end = self._add('Squeeze', self._add('Add', size, more))
    places = self._add('Range', np.int64(0), end, np.int64(1))
    period = self._add('Sub', self._add('Add', size, size), _ints(2))
    # An axis of one pixel repeats it.
    period = self._add('Max', period, _ints(1))
    there = self._add('Mod', places, period)
    back = self._add('Sub', period, there)
    return self._add('Gather', x, self._add('Min', there, back), axis=axis)

  def _network(self, rainy):
    cfg = self._cfg
    if isinstance(cfg, PReNetConfig):
      return self._refine(rainy, rainy, cfg.steps)
    if isinstance(cfg, RestormerConfig):
      x = self._conv3x3(rainy, 'embed')
      return self._add('Add', self._u_net(x, cfg, at=''), rainy)
    dilated = cfg.detail_dilation
    x = self._dilate(rainy) if dilated else self._conv3x3(rainy, 'embed')
    image = self._u_net(x, cfg, at='mhs/')
    return self._refine(rainy, image, cfg.steps) if cfg.steps else image

  def _dilate(self, image):
    zoomed = self._add('Relu', self._conv3x3(image, 'detail_dilation/zoom'))
    half = self._half(zoomed)
    detail = self._add('Sub', half, self._double(self._half(half)))
    rest = self._add('Sub', image, self._double(detail))
    return self._conv3x3(rest, 'detail_dilation/embed')

  def _half(self, x):
    return self._add('AveragePool', x, kernel_shape=[2, 2], strides=[2, 2])

  def _double(self, x):
    scales = np.array([1, 1, 2, 2], np.float32)
    return self._add('Resize', x, '', scales, mode='linear')

  def _u_net(self, x, cfg: UNetConfig, at):
    """Adds the encoder, and the decoder, whose parameters are at `at`."""
    inputs, outputs = [], []  # of levels 1 to 3, and of 0 to 3
    for level, blocks in enumerate(cfg.encoder_blocks):
      if level:
        x = self._conv3x3(x, f'mfe/down{level}_{level + 1}/conv')
        x = self._unshuffle(x, cfg.level_width(level - 1) // 2)
        inputs.append(x)
      x = self._stage(x, f'mfe/stage{level + 1}', cfg.heads[level], blocks)
      outputs.append(x)
    for level in (2, 1, 0):
      up = f'{at}up{level + 2}_{level + 1}/conv'
      x = self._add('Concat', self._upsample(x, up), outputs[level], axis=1)
      if f'{at}reduce{level + 1}/kernel' in self._weights:
        x = self._conv1x1(x, f'{at}reduce{level + 1}')
      blocks = cfg.decoder_blocks[level]
      x = self._stage(x, f'{at}stage{level + 1}', cfg.heads[level], blocks)
      if getattr(cfg, 'coupling', False):
        x = self._add('Add', x, self._upsample(inputs[level], up))
    x = self._stage(x, f'{at}refinement', cfg.heads[0], cfg.refinement_blocks)
    return self._conv3x3(x, f'{at}to_image')

  def _unshuffle(self, x, channels):
    # Channels are pixel * C + channel in ONNX, channel * 4 + pixel in ops/.
    places = np.arange(4 * channels).reshape(4, channels).T.ravel()
    order = self._constant(places, f'order of {channels} channels')
    x = self._add('SpaceToDepth', x, blocksize=2)
    return self._add('Gather', x, order, axis=1)

  def _upsample(self, x, at):
    x = self._conv3x3(x, at)
    return self._add('DepthToSpace', x, blocksize=2, mode='CRD')

  def _stage(self, x, at, heads, blocks):
    for block in range(blocks):
      name = f'{at}/{block}'
      y = self._attend(self._norm(x, f'{name}/norm1'), name, heads)
      x = self._add('Add', x, y)
      y = self._feed_forward(self._norm(x, f'{name}/norm2'), name)
      x = self._add('Add', x, y)
    return x

  def _attend(self, x, block, heads):
    at = f'{block}/attention'
    qkv = self._conv1x1(x, f'{at}/qkv')
    qkv = self._conv3x3(qkv, f'{at}/qkv_depthwise', depthwise=True)
    qkv = self._add('Split', qkv, outputs=3, axis=1, num_outputs=3)
    width = len(self._weights[f'{at}/project_out/kernel']) // heads
    in_heads = _ints(0, heads, width, -1)
    q, k, v = (self._add('Reshape', x, in_heads) for x in qkv)
    similarity = self._add('MatMul', q, self._transposed(k))
    norms = self._add('Mul', self._length(q), self._transposed(self._length(k)))
    similarity = self._add('Div', similarity, norms)
    temperature = self._weight(f'{at}/temperature')
    similarity = self._add('Mul', similarity, temperature)
    mixed = self._add('MatMul', self._add('Softmax', similarity, axis=-1), v)
    mixed = self._add('Reshape', mixed, self._add('Shape', x))
    return self._conv1x1(mixed, f'{at}/project_out')

  def _transposed(self, x):
    return self._add('Transpose', x, perm=[0, 1, 3, 2])

  def _length(self, x):
    """Computes norms over pixels: (B, heads, C, N) to (B, heads, C, 1)."""
    length = self._add('ReduceL2', x, _ints(3), keepdims=1)
    return self._add('Max', length, np.float32(1e-12))

  def _feed_forward(self, x, block):
    at = f'{block}/feed_forward'
    x = self._conv1x1(x, f'{at}/project_in')
    x = self._conv3x3(x, f'{at}/depthwise', depthwise=True)
    a, b = self._add('Split', x, outputs=2, axis=1, num_outputs=2)
    gated = self._add('Mul', self._add('Gelu', a), b)
    return self._conv1x1(gated, f'{at}/project_out')

  def _norm(self, x, at):
    mean = self._add('ReduceMean', x, _ints(1), keepdims=1)
    x = self._add('Sub', x, mean)
    square = self._add('Mul', x, x)
    variance = self._add('ReduceMean', square, _ints(1), keepdims=1)
    variance = self._add('Add', variance, np.float32(1e-5))
    x = self._add('Div', x, self._add('Sqrt', variance))
    x = self._add('Mul', x, self._weight(f'{at}/scale'))
    return self._add('Add', x, self._weight(f'{at}/bias'))

  def _refine(self, rainy, image, steps):
    """Adds the recurrent steps, which share their weights."""
    c = h = ''
    for _ in range(steps):
      x = self._add('Concat', rainy, image, axis=1)
      x = self._add('Relu', self._conv3x3(x, 'progressive/step/conv_in'))
      if not h:
        c = h = self._add('ConstantOfShape', self._add('Shape', x))
      gates = self._conv3x3(
        self._add('Concat', x, h, axis=1), 'progressive/step/gates'
      )
      i, f, g, o = self._add('Split', gates, outputs=4, axis=1, num_outputs=4)
      i, f, o = (self._add('Sigmoid', gate) for gate in (i, f, o))
      new = self._add('Mul', i, self._add('Tanh', g))
      c = self._add('Add', self._add('Mul', f, c), new)
      h = self._add('Mul', o, self._add('Tanh', c))
      x = h
      for block in range(1, RESIDUAL_BLOCKS + 1):
        name = f'progressive/step/residual{block}'
        y = self._add('Relu', self._conv3x3(x, f'{name}_1'))
        y = self._add('Relu', self._conv3x3(y, f'{name}_2'))
        x = self._add('Relu', self._add('Add', y, x))
      x = self._conv3x3(x, 'progressive/step/conv_out')
      image = self._add('Add', x, rainy)
    return image

  def _conv3x3(self, x, at, *, depthwise=False):
    kernel = self._weights[f'{at}/kernel']
    names = [f'{at}/{name}' for name in ('kernel', 'bias')]
    inputs = [self._weight(name) for name in names if name in self._weights]
    groups = len(kernel) if depthwise else 1
    return self._add('Conv', x, *inputs, group=groups, pads=[1] * 4)

  def _conv1x1(self, x, at):
    return self._add('Conv', x, self._weight(f'{at}/kernel'))


def _in_onnx_layout(params: dict) -> dict[str, np.ndarray]:
  """Returns the parameters by path, with a block's number for 'blocks'."""
  found = {}
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  for path, value in flat.items():
    parts = {path: np.asarray(value)}
    if '/blocks/' in path:
      parts = {
        path.replace('blocks', str(block)): part
        for block, part in enumerate(parts[path])
      }
    for name, part in parts.items():
      shaped = part.reshape(-1, 1, 1) if '/norm' in name else part
      found[name] = np.ascontiguousarray(to_layout(name, shaped))
  return found


def _ints(*values: int) -> np.ndarray:
  return np.array(values, np.int64)
