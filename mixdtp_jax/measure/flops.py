"""Floating-point operations of a function, counted from its jaxpr.

Convolutions and matrix products count two operations for each multiplication
with its addition. Elementwise work, which a peak rate is not about, does not
count. XLA's own `cost_analysis()` counts the body of a loop once, and the
blocks of a transformer stage are a loop.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from mixdtp_jax.ops.cpu import native


def count_flops(function: Callable[..., Any], *args: Any) -> int:
  """Returns the operations of one call, on all devices together.

  Values that the gradient recomputes count each time. If a function has a form
  for CPUs, its general form counts: the number is a property of the network,
  not of the machine. `args` are arrays, or their shapes and dtypes. ValueError
  if there is a loop whose length is not known before it runs.
  """
  return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
  general: dict[Any, int] = {}  # branch of each choice by platform
  total = 0
  eqn: Any  # not all values of JAX's types have the shapes that these have
  for eqn in jaxpr.eqns:
    name, params = eqn.primitive.name, eqn.params
    if name == 'dot_general':
      total += _of_product(eqn)
    elif name == 'conv_general_dilated':
      total += _of_convolution(eqn)
    elif name == 'ffi_call':
      total += native.flops(params['target_name'], eqn.outvars[0].aval.size)
    elif name == 'platform_index':
      general[eqn.outvars[0]] = params['platforms'].index(None)
    elif name == 'scan':
      total += params['length'] * _of_jaxpr(params['jaxpr'].jaxpr)
    elif name == 'cond':
      branches, chosen = params['branches'], general.get(eqn.invars[0])
      if chosen is not None:
        branches = branches[chosen : chosen + 1]
      total += max(_of_jaxpr(branch.jaxpr) for branch in branches)
    else:
      inner = sum(map(_of_jaxpr, core.jaxprs_in_params(params)))
      if name == 'while' and inner:
        raise ValueError('a while loop has no length to count its products by')
      total += inner
  return total


def _of_product(eqn: Any) -> int:
  (contracted, _), _ = eqn.params['dimension_numbers']
  depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
  return 2 * depth * math.prod(eqn.outvars[0].aval.shape)


def _of_convolution(eqn: Any) -> int:
  """Counts padding, and zeros between pixels, as if they were image."""
  kernel = eqn.invars[1].aval.shape
  features = eqn.params['dimension_numbers'].rhs_spec[0]
  depth = math.prod(kernel) // kernel[features]
  return 2 * depth * math.prod(eqn.outvars[0].aval.shape)
