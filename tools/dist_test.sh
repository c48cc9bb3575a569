#!/usr/bin/env bash
# usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py ...]
#
# One process per GPU; without GPUs they run on the CPU. On several machines
# set NNODES, NODE_RANK and MASTER_ADDR (and PORT) on each.
set -euo pipefail
if (($# < 3)) || [[ ! $3 =~ ^[1-9][0-9]*$ ]]; then
    sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" \
    --master-port="${PORT:-29500}" \
    --nproc-per-node="$3" \
    "$tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
