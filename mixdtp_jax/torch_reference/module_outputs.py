"""What the modules of a network compute, in JAX and in PyTorch.

An output has the name of its module in PyTorch. After these come 'coarse', the
calls of the recurrent module ('conv, step 1', ...), and 'final'. Images go in
as (B, H, W, 3) float32 with sides that are multiples of 8; outputs are NHWC, in
the order of computation.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from mixdtp_jax.models import config
from mixdtp_jax.torch_reference import inference
from mixdtp_jax.torch_reference.network import torch
from mixdtp_jax.weights.names import MIXDTP_STAGES, RESTORMER_STAGES

Outputs = dict[str, np.ndarray]
Paths = dict[str, tuple[str, ...]]

_RECURRENT = 'conv'  # called once in each step


def module_paths(cfg: config.AnyConfig) -> Paths:
  """Returns the path in Flax's parameters of each PyTorch module."""
  recurrent: Paths = {_RECURRENT: ('progressive', 'step', 'conv_out')}
  match cfg:
    case config.PReNetConfig():
      return recurrent
    case config.RestormerConfig():
      first: Paths = {'patch_embed': ('embed',)}
      return first | RESTORMER_STAGES | {'output': ('to_image',)}
    case config.MixDTPConfig():
      embed = 'detail_dilation' if cfg.detail_dilation else 'embed'
      paths: Paths = {'patch_embed': (embed,), **MIXDTP_STAGES}
      paths['conv_final'] = ('mhs', 'to_image')
      return paths | (recurrent if cfg.steps else {})


def make_jax_outputs(
  network: nn.Module, cfg: config.AnyConfig
) -> Callable[[dict, np.ndarray], Outputs]:
  """Returns a compiled function (parameters, rainy images) -> outputs."""
  paths = module_paths(cfg)
  apply = jax.jit(
    functools.partial(
      network.apply,
      # Blocks inside a scan cannot be captured, and are not needed.
      capture_intermediates=lambda module, _: module.path in paths.values(),
    )
  )

  def run(params: dict, rainy: np.ndarray) -> Outputs:
    outputs, captured = apply({'params': params}, rainy)
    found = flax.traverse_util.flatten_dict(captured['intermediates'])
    calls = {n: found[*path, '__call__'] for n, path in paths.items()}
    return jax.tree.map(np.asarray, _in_order(calls, *outputs))

  return run


def torch_outputs(
  network: torch.nn.Module, cfg: config.AnyConfig, rainy: np.ndarray
) -> Outputs:
  """Returns the same outputs of the network in PyTorch."""
  calls: dict[str, list] = {name: [] for name in module_paths(cfg)}

  def keep(name):
    return lambda module, inputs, output: calls[name].append(output)

  hooks = [
    network.get_submodule(name).register_forward_hook(keep(name))
    for name in calls
  ]
  try:
    outputs = inference.forward(network, rainy)
  finally:
    for hook in hooks:
      hook.remove()
  found = _in_order(calls, *outputs)
  return {name: inference.to_nhwc(value) for name, value in found.items()}


def _in_order(calls, final, coarse):
  found = {name: call[0] for name, call in calls.items() if name != _RECURRENT}
  found['coarse'] = coarse
  for step, call in enumerate(calls.get(_RECURRENT, ()), start=1):
    found[f'{_RECURRENT}, step {step}'] = call
  return found | {'final': final}
