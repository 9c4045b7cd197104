#!/bin/bash
# The phases of tiny-motion on a bare machine with GPUs; run from the repository root. W stays: it is set, or as it was
# in an earlier call (/tmp/where), or /dev/shm/motion where that has 140 GB, or /tmp/motion.
#   device.sh render CLIPS HELD        in the background; the others take clips as they come
#   device.sh vae SECONDS TOTAL [GPUS] device.sh encode [GPUS] device.sh flow SECONDS TOTAL [GPUS] [BATCH]
#   device.sh save                     the folder as a tar in $OUT, with logs and the sheet of reconstructions
#   device.sh reader SECONDS GPU       device.sh prove STEPS SCALE GPU
#   device.sh all1, all2, all3         everything in three calls on 4 GPUs: the autoencoder (GPUs 2 and 3 stay free);
#                                      latents and the flow; the rest of the flow, reader, three proofs
# INIT names the folder of an earlier round whose weights vae and flow begin with.
# SECONDS are of this call, start included; TOTAL is the sum over all calls of the phase.
# .whl holds wheels (diffusers, skia-python), .gl the GL and X libraries that skia links to.
set -o pipefail
if [ -z "$W" ]; then
  free=$(df -BG --output=avail /dev/shm | tail -1 | tr -dc 0-9)
  if [ -e /tmp/where ]; then W=$(cat /tmp/where); elif [ "${free:-0}" -gt 140 ]; then W=/dev/shm/motion; else W=/tmp/motion; fi
  echo "$W" >/tmp/where
fi
export W OUT=${OUT:-$W}
SITE=/tmp/site GL=/tmp/gl HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$W"
export PYTHONPATH=$SITE PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor NCCL_NVLS_ENABLE=0 TORCH_NCCL_ASYNC_ERROR_HANDLING=1
need() { # FILE...: what earlier calls on this machine left
  for f; do [ -e "$W/$f" ] || { echo "this phase needs $W/$f, which is not there: was the machine lost?"; exit 3; }; done
}
case $1 in
  all2) need all1 vae.pt vae/config.json train/progress.json ;;
  all3) need all2 flow.pt latents.bin held/progress.json ;;
esac
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
drawing() { # COMMAND...: with the libraries that skia links to
  LD_LIBRARY_PATH=$GL/usr/lib/x86_64-linux-gnu:$GL/lib/x86_64-linux-gnu:$LD_LIBRARY_PATH PYTHONPATH=$HERE:$HERE/..:$SITE "$@"
}
render() { # CLIPS HELD: in the background
  OMP_NUM_THREADS=1 drawing setsid nice -n 5 python3 -W ignore "$TRAIN" render --work "$W" --count "$1" \
    --held-count "${2:-0}" >"$W/render.log" 2>&1 </dev/null &
}
report() { # what all proofs, the reader and the logs say, in one tar; without the animations where it gets too large
  cp "$W"/*.log "$W/proof/"
  tar -cf "$OUT/rep.tar" -C "$W" proof reader vae.png
  [ "$(stat -c %s "$OUT/rep.tar")" -lt $((16 << 20)) ] || tar -cf "$OUT/rep.tar" -C "$W" --exclude '*.webp' proof reader vae.png
}
phase=$1; shift
case $phase in
  ranks) ranks "$@" ;;
  render)
    render "$@"
    for _ in $(seq 60); do sleep 1; [ -e "$W/train/progress.json" ] && break; done
    sleep 10; cat "$W/render.log" "$W/train/progress.json"; echo; df -h "$W" | tail -1 ;;
  vae) slice "${3:-$(gpus)}" vae "$1" "$2" ${INIT:+--init "$INIT"} && cp "$W/vae.png" "$W/vae.log" "$OUT/" ;;
  encode) ranks "${1:-$(gpus)}" encode ;;
  flow) slice "${3:-$(gpus)}" flow "$1" "$2" ${INIT:+--init "$INIT"} ${4:+--batch "$4"} && cp "$W/flow.log" "$OUT/" ;;
  save)
    python3 -W ignore "$TRAIN" save --work "$W" --out "$W/tiny-motion" && python3 -W ignore "$TRAIN" pack --work "$W" --out "$W/tiny-motion" &&
      cp "$W"/tiny-motion.tar "$OUT/" && cp "$W"/*.log "$W"/vae.png "$OUT/" ;;
  reader)
    CUDA_VISIBLE_DEVICES=$2 drawing python3 -W ignore "$HERE/motion_reader.py" --train "$W/train" --held "$W/held" \
      --vae "$W/vae" --out "$W/reader" --seconds "$1" >"$W/reader.log" 2>&1 ;;
  prove)
    name=steps$1-scale$2; mkdir -p "$W/proof"
    CUDA_VISIBLE_DEVICES=$3 drawing python3 -W ignore "$HERE/motion_evaluate.py" --model "$W/tiny-motion" \
      --reader "$W/reader" --out "$W/proof/$name" --steps "$1" --scale "$2" --calibrate 60 --batch 16 \
      >"$W/proof-$name.log" 2>&1 ;;
  all1)
    render 40000 3000
    bash "$0" vae 415 415 2 && tar -cf "$OUT/vae.tar" -C "$W" vae && touch "$W/all1" && cat "$W/render.log" ;;
  all2)
    bash "$0" encode && bash "$0" flow 450 622 4 64 && bash "$0" save && touch "$W/all2" ;;
  all3)
    bash "$0" reader 110 3 & reading=$!
    bash "$0" flow 172 622 3 96 && bash "$0" save || exit
    wait $reading; tail -n 12 "$W/reader.log"; mkdir -p "$W/proof"
    n=0; proving=()
    for pair in "24 3" "24 5" "24 7"; do
      timeout -k 5 $((${LIMIT:-565} - SECONDS)) bash "$0" prove $pair $n & proving+=($!); n=$((n + 1))
    done
    for job in "${proving[@]}"; do wait "$job" || echo "a proof failed or ran out of time"; done
    report; cat "$W"/proof/*/calibration.md "$W"/proof/*/report.md ;;
  *) echo "no phase $phase: render, vae, encode, flow, save, reader, prove, all1, all2, all3"; exit 2 ;;
esac
rc=$?; cat "$W/train/progress.json" 2>/dev/null; echo; exit $rc
