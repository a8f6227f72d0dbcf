#!/bin/bash
# Train the bank, resumably: bank.sh RUNS [FIRST_SEED LAST_SEED]. Six seeds of all rungs at a time, so that what is there
# at any moment is whole. Two jobs, one thread each.
set -eu
runs=$1 first=${2:-0} last=${3:-31}
cd "$(dirname "$0")/../.."
modern="baseline stage_ratio patchify_stem depthwise_conv increase_width inverted_bottleneck move_up_depthwise kernel_5
kernel_7 kernel_9 kernel_11 gelu fewer_activations fewer_norms layer_norm separate_downsampling"
train() {  # SEEDS... -- RUNGS...
    seeds=${1} rungs=${2} want=$(($(wc -w <<<"$1") * $(wc -w <<<"$2")))
    python run_ladder.py launch --base resnet50 --jobs 2 --runs "$runs" --seeds $seeds --only $rungs
    until [ "$(python records/bank/export.py "$runs" --count --seeds $seeds --rungs $rungs)" -ge "$want" ]; do sleep 20; done
}
for ((seed = first; seed <= last; seed += 6)); do
    seeds=$(seq -s ' ' "$seed" $((seed + 5 < last ? seed + 5 : last)))
    train "$seeds" "$modern"
    # The first rung's recipe was chosen last: its runs wait for that.
    if [ -e "$runs/../plain_is_chosen" ]; then train "$(seq -s ' ' "$first" "${seeds##* }")" baseline_original; fi
done
