"""What a computation costs in JAX and in PyTorch: time and memory."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mixdtp_jax import inference, memory
from mixdtp_jax.compare.networks import Networks
from mixdtp_jax.interop import torch_inference
from mixdtp_jax.model.architectures import final_image
from mixdtp_jax.timing import Timing, paired, seconds


class Compiled(NamedTuple):
  """A function of JAX, compiled for some shapes; times in seconds.

  Attributes:
    run: the compiled function.
    lower: time of tracing and lowering.
    compile: time of XLA's compilation of that.
  """

  run: jax.stages.Compiled
  lower: float
  compile: float


def compile_timed(jitted: Any, *arguments: Any) -> Compiled:
  """Compiles a jitted function for its arguments, which stay untouched."""
  lower, lowered = seconds(lambda: jitted.lower(*arguments))
  compile_, compiled = seconds(lowered.compile)
  return Compiled(compiled, lower, compile_)


@dataclasses.dataclass(frozen=True)
class Speed:
  """Cost of one computation; times in seconds.

  Attributes:
    what: is computed.
    jax_lower: see `Compiled`.
    jax_compile: the same.
    jax_first: the first run of what was compiled.
    torch_first: the first run; whatever PyTorch prepares is part of it.
    timing: warm runs in turns; a is JAX, b PyTorch.
    jax_memory: peak of a warm run, beyond what is held between runs.
    torch_memory: the same.
  """

  what: str
  jax_lower: float
  jax_compile: float
  jax_first: float
  torch_first: float
  timing: Timing
  jax_memory: memory.Peak
  torch_memory: memory.Peak


def measure(
  what: str,
  compiled: Compiled,
  run_jax: Callable[[], Any],
  run_torch: Callable[[], Any],
  *,
  networks: Networks,
  repeats: int,
) -> Speed:
  """Measures a computation that has not run yet.

  Args:
    what: is computed.
    compiled: what `run_jax` runs.
    run_jax: returns when JAX's device is done.
    run_torch: returns when PyTorch's device is done.
    networks: says which devices these are.
    repeats: runs of each that are timed.
  """
  jax_first, torch_first = seconds(run_jax)[0], seconds(run_torch)[0]
  if networks.device.platform == 'cpu':
    jax_memory = memory.peak_of_process(run_jax)
  else:
    jax_memory = memory.planned(compiled.run)
  device = torch_inference.device_of(networks.torch)
  return Speed(
    what,
    compiled.lower,
    compiled.compile,
    jax_first,
    torch_first,
    torch_memory=torch_inference.peak_memory(run_torch, device),
    jax_memory=jax_memory,
    timing=paired(run_jax, run_torch, repeats),
  )


def measure_inference(
  networks: Networks, rainy: np.ndarray, repeats: int
) -> Speed:
  """Cost of final images from rainy ones (B, H, W, 3).

  The rainy images are on the device before, the final ones stay there.
  """
  rainy = inference.pad(rainy, networks.jax.multiple, num_devices=1)
  arguments = networks.params, jax.device_put(rainy, networks.device)
  compiled = compile_timed(jax.jit(final_image(networks.cfg)), *arguments)
  batch, height, width, _ = rainy.shape
  return measure(
    f'inference, {batch} x {height}x{width}',
    compiled,
    lambda: jax.block_until_ready(compiled.run(*arguments)),
    torch_inference.make_run(networks.torch, rainy),
    networks=networks,
    repeats=repeats,
  )
