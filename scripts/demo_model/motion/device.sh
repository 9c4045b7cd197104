#!/bin/bash
# The phases of tiny-motion on a bare machine with GPUs; run from the repository root, W (default /tmp/motion) stays.
#   device.sh render CLIPS HELD        in the background; the others take clips as they come
#   device.sh vae SECONDS TOTAL [GPUS] device.sh encode [GPUS] device.sh flow SECONDS TOTAL [GPUS] [BATCH]
#   device.sh save                     the folder as a tar in $OUT, with logs and the sheet of reconstructions
# SECONDS are of this call, start included; TOTAL is the sum over all calls of the phase.
# .whl holds wheels (diffusers, skia-python), .gl the GL and X libraries that skia links to.
set -o pipefail
W=${W:-/tmp/motion} OUT=${OUT:-$W} SITE=/tmp/site GL=/tmp/gl HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$W"
export PYTHONPATH=$SITE PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor NCCL_NVLS_ENABLE=0 TORCH_NCCL_ASYNC_ERROR_HANDLING=1
if [ ! -e $SITE/.whole ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $SITE .whl/*.whl || exit
  mkdir -p $GL && for f in .gl/*.deb; do dpkg -x "$f" $GL || exit; done
  touch $SITE/.whole
fi
TRAIN="$HERE/motion_train.py"
gpus() { python3 -c 'import torch; print(torch.cuda.device_count())'; }
ranks() { # GPUS STEP ARGS...: on that many GPUs; one that fails ends all
  local n=$1; shift
  python3 -W ignore -m torch.distributed.run --standalone --nproc-per-node "$n" "$TRAIN" "$@" --work "$W" 2>&1 | tee -a "$W/$1.log"
}
slice() { # GPUS STEP SECONDS TOTAL ARGS...: compiled, and where that fails plainly in the time that is left
  local n=$1 step=$2 seconds=$3 total=$4 begin=$SECONDS; shift 4
  timeout -k 5 $((seconds + 45)) bash "$0" ranks "$n" "$step" --seconds "$seconds" --total-seconds "$total" --mode fast "$@" && return
  local left=$((seconds - SECONDS + begin))
  echo "$step failed compiled, $left s left"
  [ "$left" -ge 45 ] || return 1
  timeout -k 5 $((left + 45)) bash "$0" ranks "$n" "$step" --seconds "$left" --total-seconds "$total" --mode eager "$@"
}
phase=$1; shift
case $phase in
  ranks) ranks "$@" ;;
  render)
    LD_LIBRARY_PATH=$GL/usr/lib/x86_64-linux-gnu:$GL/lib/x86_64-linux-gnu:$LD_LIBRARY_PATH OMP_NUM_THREADS=1 \
      setsid nice -n 5 python3 -W ignore "$TRAIN" render --work "$W" --count "$1" --held-count "${2:-0}" \
      >"$W/render.log" 2>&1 </dev/null &
    for _ in $(seq 60); do sleep 1; [ -e "$W/train/progress.json" ] && break; done
    sleep 10; cat "$W/render.log" "$W/train/progress.json"; echo; df -h "$W" | tail -1 ;;
  vae) slice "${3:-$(gpus)}" vae "$1" "$2" && cp "$W/vae.png" "$W/vae.log" "$OUT/" ;;
  encode) ranks "${1:-$(gpus)}" encode ;;
  flow) slice "${3:-$(gpus)}" flow "$1" "$2" ${4:+--batch "$4"} && cp "$W/flow.log" "$OUT/" ;;
  save)
    python3 -W ignore "$TRAIN" save --work "$W" --out "$W/tiny-motion" && python3 -W ignore "$TRAIN" pack --work "$W" --out "$W/tiny-motion" &&
      cp "$W"/tiny-motion.tar "$OUT/" && cp "$W"/*.log "$W"/vae.png "$OUT/" ;;
  *) echo "no phase $phase: render, vae, encode, flow, save"; exit 2 ;;
esac
rc=$?; cat "$W/train/progress.json" 2>/dev/null; echo; exit $rc
