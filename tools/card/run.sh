#!/bin/sh
# Measures on this machine's graphics card, from a kit that `cargo xtask card-kit` made: our kernels beside the plain
# operations, golden's numbers, and edits beside PyTorch's. Ends within eight minutes and writes what it prints to
# results.txt too.
#
#   ./run.sh [SHAPES [DEVICES]]     for example: ./run.sh small,xl,7b cuda,vulkan
#
# Needs a driver (CUDA's toolkit for the device cuda), and for the comparisons python3 with torch and transformers.
# WORK is where models of random numbers are written, up to 14 GB at a time; CHROMIUM a browser to measure the page with.
set -u
cd "$(dirname "$0")" || exit 1
KIT=$PWD
SHAPES=${1:-small,xl,7b}
DEVICES=${2:-cuda,vulkan}
WORK=${WORK:-/tmp/rectify-card}
STARTED=$(date +%s)
LIMIT=${LIMIT:-470}
export CARGO_MANIFEST_DIR="$KIT/xtask" CARGO_TARGET_DIR="$WORK"
mkdir -p "$WORK"
exec 3>&1

left() { echo $((LIMIT - $(date +%s) + STARTED)); }
# Of what a command prints only some lines; all of it is in a file of its own.
told() {
    lines=$1; shift
    "$@" >"$WORK/told.log" 2>&1
    code=$?
    grep -E "$lines" "$WORK/told.log" | head -60
    return $code
}
# Runs a step for at most so many seconds, and says how it ended.
step() {
    most=$1; name=$2; shift 2
    [ "$(left)" -lt "$most" ] && most=$(left)
    if [ "$most" -lt 5 ]; then echo "-- $name: LEFT OUT, no time is left"; return; fi
    echo "-- $name (at most $most s)"
    if [ "$1" = told ]; then
        lines=$2; shift 2
        told "$lines" timeout "$most" "$@"
    else
        timeout "$most" "$@"
    fi
    echo "-- $name: exit $?, $(left) s are left"
}

{
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null
    for device in $(echo "$DEVICES" | tr , ' '); do
        export BURN_DEVICE=$device RECTIFY_TEST_DEVICE=$device
        step 60 "our kernels on $device" told "FAILED|panicked|test result" ./bin/kernels kernels::
        step 90 "golden's numbers on $device" told "FAILED|panicked|test result" ./bin/parity
        step 60 "rates of products on $device" told "TFLOP|panicked" ./bin/kernels rates --ignored --nocapture
    done
    unset BURN_DEVICE RECTIFY_TEST_DEVICE
    if python3 -c 'import torch, transformers' 2>/dev/null; then
        step 400 "edits beside PyTorch's" ./bin/xtask bench card --ours ./bin/bench --shapes "$SHAPES" \
            --devices "$DEVICES" --tokenizer tokenizer.json --repeats "${REPEATS:-3}" --peer-device "${PEER:-cuda}"
    else
        echo "-- edits beside PyTorch's: LEFT OUT, python3 has no torch or no transformers"
    fi
    if [ -n "${CHROMIUM:-}" ]; then
        step 150 "the page in $CHROMIUM" python3 tools/card/web.py page "$WORK" "$CHROMIUM"
    else
        echo "-- the page: LEFT OUT, CHROMIUM does not name a browser"
    fi
} 2>&1 | tee results.txt
