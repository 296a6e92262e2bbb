#!/bin/sh
# Trains the small network without, or with another form of, one idea at a time,
# each with three seeds, and compares the variants seed by seed:
#
#   examples/general/study.sh PREPARED RUNS
#
# PREPARED holds the data that README.md prepares; RUNS gets a folder for each run,
# and runs.html. A run that is finished is not trained again, only evaluated.
set -eu
prepared=$1 runs=$2

train() {  # NAME SEED OPTIONS...
  name=$1 seed=$2
  shift 2
  mixdtp train --workdir="$runs/$name-$seed" --config.seed="$seed" \
    --config.data.name=pairs --config.data.mixture="(('rain100l', 1),)" \
    --config.data.data_dir="$prepared" --config.data.crop=48 --config.batch_size=2 \
    --config.num_train_steps=2000 --config.ema_decay=0.995 \
    --config.eval_every_steps=0 \
    --config.compilation_cache_dir="$runs/compiled" "$@"
}

for seed in 1 2 3; do
  for name in full without_detail_dilation without_coupling \
    loss_as_published loss_ssim_l1 without_turns; do
    train $name $seed --config="ablation:small/$name" --config.model.steps=1
  done
  for name in without_refinement steps3; do
    train $name $seed --config="ablation:small/$name"
  done
done
mixdtp runs "$runs"/*-[123] --out "$runs"
