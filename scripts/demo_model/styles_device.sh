#!/bin/bash
# Trains and proves the three adapters on the GPUs there are, in at most BUDGET seconds (420), into the folder OUT:
#   GPUS="1 2 3" bash scripts/demo_model/styles_device.sh OUT
# Sources SETUP (.whl/env.sh) for packages that are missing, nothing if that is empty. Takes the pictures that
# `lora.py pack --work $WORK` made, or draws COUNT of them, which needs skia.
set -e
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
out=${1:?"usage: styles_device.sh OUT"}
cd "$(dirname "$0")/../.."
WORK=${WORK:-.gpu/tiny-styles} STATE=${STATE:-/tmp/tiny-styles-state} BUDGET=${BUDGET:-420}
COUNT=${COUNT:-24000} PYTHON=${PYTHON:-python3} LEARN=${LEARN:-} READERS=${READERS:-} GAIN=${GAIN:-} READ=${READ:-}
SETUP=${SETUP-.whl/env.sh}
[ -z "$SETUP" ] || . "$SETUP"
read -ra gpus <<< "${GPUS:-$(nvidia-smi --query-gpu=index --format=csv,noheader | tr '\n' ' ')}"
styles=(pixel-art pencil-sketch neon-night)
count=${#gpus[@]} reader=${gpus[-1]}
[ "$count" -le 3 ] || { reader=${gpus[0]} gpus=("${gpus[@]:1:3}") count=3; }  # of many the first is for the readers
each=$(((3 + count - 1) / count))                            # styles one after another on a GPU
seconds=${SECONDS_EACH:-$(((BUDGET - 220) / each))}          # the rest: start, pictures, readers, strengths, report
reading=$((seconds * each - 90))  # for the readers, meanwhile
[ "$reading" -ge 60 ] || reading=60
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8} TOKENIZERS_PARALLELISM=false
mkdir -p "$out" "$STATE"
step() {  # GPU, step, flags: always in the background, where the trap finds it
    exec env CUDA_VISIBLE_DEVICES="$1" timeout "$BUDGET" "$PYTHON" scripts/demo_model/lora.py "${@:2}" \
        --work "$WORK" --state "$STATE" --out "$out"
}
mine() { local i; for ((i = $1; i < 3; i += count)); do echo "${styles[i]}"; done; }  # the styles of a GPU
all() {  # waits for each of the processes, and fails with the first that failed
    local pid; for pid in "$@"; do wait "$pid" || { cat "$STATE"/*.log | tail -40; exit 1; }; done
}

pids=()
for ((g = 0; g < count; g++)); do
    step "${gpus[g]}" learn --compile --style $(mine $g) --seconds "$seconds" $LEARN > "$STATE/learn$g.log" 2>&1 & pids+=($!)
done
{ [ -e "$WORK/pictures.json" ] || "$PYTHON" scripts/demo_model/lora.py pack --work "$WORK" --count "$COUNT"; } > "$STATE/pack.log" 2>&1 &&
    step "$reader" readers --reader-batch 256 --decoded 10000 --test 400 --reader-seconds "$reading" $READERS \
        > "$STATE/readers.log" 2>&1 & pids+=($!)
all "${pids[@]}"
echo "trained after ${SECONDS}s"; grep -h -E " steps (of|in) |drew|thing" "$STATE"/{learn*,pack,readers}.log || true

pids=()
for ((g = 0; g < count; g++)); do
    step "${gpus[g]}" gain --style $(mine $g) --prompts 300 --gains 1 0.9 0.8 $GAIN > "$STATE/gain$g.log" 2>&1 & pids+=($!)
done
all "${pids[@]}"
echo "strengths after ${SECONDS}s"; grep -h -E " at |file's" "$STATE"/gain*.log

step "$reader" read --prompts 300 --fewer 100 $READ > "$STATE/read.log" 2>&1 & all $!
echo "report after ${SECONDS}s"; grep -A30 "| check" "$out/report.md"; ls -l "$out"
