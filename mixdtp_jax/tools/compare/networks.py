"""One network in both frameworks, and the differences of their results.

Images are NHWC float32 in [0, 1].
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from mixdtp_jax.data.eval_batches import eval_batches
from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.score import Row, evaluate
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import Network, final_image, make_network
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.torch_reference import inference, module_outputs


@dataclasses.dataclass(frozen=True)
class Networks:
  """One network in both frameworks.

  Attributes:
    cfg: configuration.
    params: parameters in JAX, on `device`.
    jax: Flax module.
    torch: PyTorch module with the same weights, on its own device.
    device: JAX's device.
  """

  cfg: AnyConfig
  params: dict
  jax: Network
  torch: Any
  device: jax.Device


def make_networks(cfg: AnyConfig, params: dict) -> Networks:
  """Puts each network on the first device that its framework finds."""
  device = jax.devices()[0]
  return Networks(
    cfg,
    jax.device_put(params, device),
    make_network(cfg),
    inference.load_network(cfg, params),
    device,
  )


@dataclasses.dataclass(frozen=True)
class Difference:
  """|JAX - PyTorch| of a module's output over all images.

  Attributes:
    stage: name of the module; see `torch_reference.module_outputs`.
    largest: largest difference.
    mean: mean difference; each image counts the same.
    scale: largest magnitude of the output in PyTorch.
  """

  stage: str
  largest: float
  mean: float
  scale: float

  @property
  def relative(self) -> float:
    """The largest difference divided by the largest magnitude."""
    return self.largest / self.scale if self.scale else self.largest


def stage_differences(networks: Networks, images: Pairs) -> list[Difference]:
  """Compares the outputs of all modules, in the order of computation."""
  jax_outputs = module_outputs.make_jax_outputs(networks.jax, networks.cfg)
  found = {}
  for batch in eval_batches(images, batch_size=1):
    rainy = whole_image.pad(batch.rainy, networks.jax.multiple, num_devices=1)
    ours = jax_outputs(networks.params, rainy)
    theirs = module_outputs.torch_outputs(networks.torch, networks.cfg, rainy)
    for name, value in theirs.items():
      apart = np.abs(ours[name].astype(np.float64) - value)
      numbers = apart.max(), apart.mean(), np.abs(value).max()
      found.setdefault(name, []).append(numbers)
  return [
    Difference(
      name,
      largest=float(np.max(column[0])),
      mean=float(np.mean(column[1])),
      scale=float(np.max(column[2])),
    )
    for name, column in ((n, np.transpose(v)) for n, v in found.items())
  ]


@dataclasses.dataclass(frozen=True)
class Restored:
  """One image: its name, and four arrays (H, W, 3) float32 in [0, 1]."""

  name: str
  rainy: np.ndarray
  clean: np.ndarray
  jax: np.ndarray
  torch: np.ndarray


def restore_both(
  networks: Networks, images: Pairs
) -> tuple[list[Row], list[Row], list[Restored]]:
  """Returns JAX's scores under every protocol, PyTorch's, and the images."""
  restores = (
    whole_image.make_restore(
      final_image(networks.cfg),
      networks.params,
      multiple=networks.jax.multiple,
      mesh=make_mesh([networks.device]),
    ),
    inference.make_restore(networks.torch, multiple=networks.jax.multiple),
  )
  batches = list(eval_batches(images, batch_size=1))
  rows, restored = [], []
  for restore in restores:
    pictures = {}
    rows.append(
      evaluate(restore, batches, list(PROTOCOLS), save=pictures.__setitem__)
    )
    restored.append(pictures)
  pictures = [
    Restored(name, batch.rainy[0], batch.clean[0], *(r[name] for r in restored))
    for batch in batches
    for name in batch.names
  ]
  return *rows, pictures
