#!/usr/bin/env bash
# Everything to be measured on a GPU, in one run of less than nine minutes: doctor, parity in float64, times, kernels, precision.
#
#   benchmarks/gpu.sh [--out FOLDER] [--rehearse] [--train RECIPE [--checkpoint PART ...]] [-- SETTING ...]
#
# It needs Python >= 3.11 with JAX for the card (0.11.2 passed `equiform doctor` on an H200). What else is missing is installed
# from ./wheels, which is filled on a machine with a network by
#
#   python3 -m pip download --only-binary=:all: --no-deps -d wheels equinox optax jaxtyping wadler-lindig ase vesin safetensors \
#       pydantic pydantic-core annotated-types typing-inspection typer rich shellingham tensorboardX platformdirs
#
# --train resumes a recipe with the minutes that are left. Its run folder is kept in parts of 15 MB, FOLDER/run.tar.aa, .ab, ...;
# give these files with --checkpoint the next time, and several short runs add up to a long one.
# --rehearse does the same on a processor with small structures.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/gpu rehearse="" train="" parts=() settings=() minutes=${MINUTES:-9}
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --rehearse) rehearse=--rehearse; shift ;;
    --train) train=$2; shift 2 ;;
    --checkpoint) shift; while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do parts+=("$1"); shift; done ;;
    --) shift; settings=("$@"); break ;;
    -h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit ;;
    *) echo "$0: unknown option $1; see --help" >&2; exit 2 ;;
  esac
done
python=${PYTHON:-python3}
start=$(date +%s)
left() { echo $((60 * minutes - $(date +%s) + start)); }
mkdir -p "$out"

if ! "$python" -c 'import jax, equinox, optax, ase, vesin, safetensors, pydantic, typer' 2>"$out/missing.txt"; then
  if [ ! -d wheels ]; then
    echo "$(tail -n 1 "$out/missing.txt"); fill ./wheels with the command at the top of $0" >&2
    exit 1
  fi
  "$python" -m pip install --quiet --no-index --no-deps --target "$out/site" --upgrade wheels/*.whl
  export PYTHONPATH="$out/site"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "$rehearse" ] && ! "$python" -c 'import jax, sys; sys.exit(jax.default_backend() != "gpu")'; then
  echo "JAX sees no GPU here; --rehearse runs the same on a processor" >&2
  exit 1
fi

echo "== doctor"
"$python" -m equiform doctor | tee "$out/doctor.txt"
echo "== parity in float64"
cases=(qm9_small_nonlinear md17_small_l2)
if [ -d ../shared/parity ] || [ -n "${EQUIFORM_PARITY:-}" ]; then
  "$python" -m benchmarks.parity "${cases[@]:0:${rehearse:+1}}" --no-gradients | tee "$out/parity.txt" | tail -n 1
else
  echo "no stored references beside this clone; doctor has compared float64 with the processor" | tee "$out/parity.txt"
fi
echo "== programs"
"$python" -m benchmarks.gpu $rehearse --json "$out/gpu.json" --minutes "$((minutes - 4 > 0 ? minutes - 4 : 1))" | tee "$out/gpu.txt"

if [ -n "$train" ]; then
  echo "== training $train, $(left) seconds left"
  run="$out/run"
  if [ ${#parts[@]} -gt 0 ]; then
    cat "${parts[@]}" | tar -x -C "$out"
  fi
  # SIGTERM lets a run save its state; half a minute is left for that and for the archive.
  seconds=$(($(left) - 30))
  if [ "$seconds" -gt 20 ]; then
    if [ -f "$run/run.json" ]; then
      timeout --signal=TERM "$seconds" "$python" -m equiform recipe run --resume "$run" || [ $? -ge 124 ] || exit 1
    else
      timeout --signal=TERM "$seconds" "$python" -m equiform recipe run "$train" "${settings[@]}" -o "$run" || [ $? -ge 124 ] || exit 1
    fi
  fi
  rm -f "$out"/run.tar.*
  tar -c -C "$out" run | split -b 15M - "$out/run.tar."
  ls -l "$out"/run.tar.*
fi
cat "$out/gpu.txt" | tail -n 20
