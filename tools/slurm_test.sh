#!/usr/bin/env bash
# usage: slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [arguments of test.py ...]
#
# GPUS (8) in all, GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS say what
# to ask Slurm for.
set -euo pipefail
if (($# < 4)); then
    sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

# shellcheck disable=SC2086  # SRUN_ARGS holds several
PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun --partition="$1" --job-name="$2" \
    --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$tools/test.py" "$3" "$4" --launcher slurm \
    "${@:5}"
