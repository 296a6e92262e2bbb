"""What the two networks compute on their way, stage by stage.

A stage has the name of its module in PyTorch; then come 'coarse', the calls of
the recurrent module ('conv, step 1', ...), and 'final'. Images go in as (B, H,
W, 3) float32 with sides that are multiples of 8; stages come out as NHWC
arrays, in the order in which they are computed.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from mixdtp_jax.models.config import (
  AnyConfig,
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
)
from mixdtp_jax.torch_reference import inference
from mixdtp_jax.torch_reference.network import torch
from mixdtp_jax.weights.names import MIXDTP_STAGES, RESTORMER_STAGES

Stages = dict[str, np.ndarray]

_RECURRENT = 'conv'  # called once a step


def stage_paths(cfg: AnyConfig) -> dict[str, tuple[str, ...]]:
  """PyTorch module -> path of the same module in Flax, in order of execution.

  The paths are those of the parameter tree.
  """
  recurrent = {_RECURRENT: ('progressive', 'step', 'conv_out')}
  match cfg:
    case PReNetConfig():
      return recurrent
    case RestormerConfig():
      ends = {'patch_embed': ('embed',)}, {'output': ('to_image',)}
      return ends[0] | RESTORMER_STAGES | ends[1]
    case MixDTPConfig():
      embed = 'detail_dilation' if cfg.detail_dilation else 'embed'
      ends = {'patch_embed': (embed,)}, {'conv_final': ('mhs', 'to_image')}
      paths = ends[0] | MIXDTP_STAGES | ends[1]
      return paths | (recurrent if cfg.steps else {})


def make_jax_stages(
  network: nn.Module, cfg: AnyConfig
) -> Callable[[dict, np.ndarray], Stages]:
  """A compiled function (parameters, rainy images) -> stages."""
  paths = stage_paths(cfg)
  apply = jax.jit(
    functools.partial(
      network.apply,
      # Blocks inside a scan cannot be captured, and are not asked for.
      capture_intermediates=lambda module, _: module.path in paths.values(),
    )
  )

  def run(params: dict, rainy: np.ndarray) -> Stages:
    outputs, captured = apply({'params': params}, rainy)
    calls = {
      name: functools.reduce(
        lambda tree, key: tree[key], path, captured['intermediates']
      )['__call__']
      for name, path in paths.items()
    }
    return jax.tree.map(np.asarray, _in_order(calls, *outputs))

  return run


def torch_stages(
  network: torch.nn.Module, cfg: AnyConfig, rainy: np.ndarray
) -> Stages:
  """The same stages of the network in PyTorch, on the device it is on."""
  calls = {name: [] for name in stage_paths(cfg)}

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
  stages = _in_order(calls, *outputs)
  return {n: inference.to_nhwc(value) for n, value in stages.items()}


def _in_order(calls, final, coarse):
  stages = {n: c[0] for n, c in calls.items() if n != _RECURRENT}
  stages['coarse'] = coarse
  for step, call in enumerate(calls.get(_RECURRENT, ()), start=1):
    stages[f'{_RECURRENT}, step {step}'] = call
  return stages | {'final': final}
