"""Ablations on Rain100L: one change to the network or its loss.

--config=ablation:NAME is the recipe rain100l with one change, and
--config=ablation:small/NAME is rain100l_small with that change. ABLATIONS lists
the names.
"""

from mixdtp_jax.configs import rain100l, rain100l_small

# Names, each with the options that it sets.
ABLATIONS = {
  'full': {},
  'without_detail_dilation': {'model.detail_dilation': False},
  'without_coupling': {'model.coupling': False},
  # The coarse image is then the final one, and its loss, -SSIM + 0.5 MSE.
  'without_refinement': {'model.steps': 0},
  **{f'steps{steps}': {'model.steps': steps} for steps in range(1, 7)},
  'loss_l1': {'loss.final': 'l1'},
  'loss_mse': {'loss.final': 'mse'},
  'loss_charbonnier': {'loss.final': 'charbonnier'},
  'loss_ssim_l1': {'loss.final': 'ssim_l1'},
  'loss_final_only': {'loss.coarse_weight': 0.0},
  'loss_as_published': {'loss.coarse': 'ssim_as_published'},
  'without_turns': {'data.rotate': False},
}

# Prefixes of names, each with the recipe that is changed.
_RECIPES = {'': rain100l, 'small/': rain100l_small}


def get_config(name: str = 'full'):
  configs = {
    prefix + ablation: (recipe, changes)
    for prefix, recipe in _RECIPES.items()
    for ablation, changes in ABLATIONS.items()
  }
  if name not in configs:
    raise ValueError(f'ablation {name!r}: choose from {", ".join(configs)}')
  recipe, changes = configs[name]
  config = recipe.get_config()
  config.update_from_flattened_dict(changes)
  return config
