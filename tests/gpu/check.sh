#!/usr/bin/env bash
# Check xbench on a CUDA device, in under six minutes:
#
#   tests/gpu/check.sh FOLDER
#
# FOLDER is made, or must be empty. Each step leaves a log, its figures (NAME.json) and its records there, and
# summary.txt has a line for each step: ok, failed or skipped, its seconds, and its figures. A step that fails
# does not end the check. The exit code is 1 if any step failed, 2 if the check could not start, and 0
# otherwise. Without a CUDA device it says so, and exits with 0.
#
# It needs xbench's own dependencies and pytest, and no data: all images are made up. An installation made with
# `pip install --no-build-isolation --no-deps -e .` will do.
#
# Environment variables:
#   PYTHON           the interpreter that has xbench (default: python3)
#   CHECK_DEVICE     "cpu" runs the same steps on the CPU, on smaller sizes, to try the check itself
#   CHECK_BUDGET_S   seconds for all steps; those that come later are skipped (default: 345, on the CPU 3600)
#   CHECK_STEPS      names of the steps to run, separated by spaces (default: all)
set -uo pipefail # no -e: a step that fails does not end the check

readonly -a STEPS=(
  machine doctor oom tests peak step-time micro-batches repeat resume
  capacity-sgd-batch-size capacity-adam-batch-size capacity-lbfgs-train-size
  capacity-sgd-micro-batch capacity-adam-micro-batch capacity-lbfgs-history-size
  first-step
)

stop() {
  echo "check.sh: $1" >&2
  exit 2
}

(($# == 1)) || stop "usage: check.sh FOLDER"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
device=${CHECK_DEVICE:-cuda}
[[ $device == cuda || $device == cpu ]] || stop "CHECK_DEVICE is '$device', not cuda or cpu"

if [[ $device == cuda ]]; then
  devices=$("$python" "$here/count_devices.py") || stop "cannot run $python"
  if [[ $devices == 0 ]]; then
    echo "no CUDA device: nothing was checked (CHECK_DEVICE=cpu tries the check itself on the CPU)"
    exit 0
  fi
fi

mkdir -p "$1" && folder=$(cd "$1" && pwd) || stop "cannot make the folder $1"
[[ -z $(ls -A "$folder") ]] || stop "$folder is not empty"
scratch=$(mktemp -d) || stop "cannot make a temporary folder"
export PYTHONPATH=${here%/tests/gpu}${PYTHONPATH:+:$PYTHONPATH}
export CHECK_FOLDER=$folder CHECK_DEVICE=$device XBENCH_CACHE_DIR=$scratch/cache

if [[ $device == cuda ]]; then
  budget=${CHECK_BUDGET_S:-345} patience=1
else
  budget=${CHECK_BUDGET_S:-3600} patience=10 # times the limit of a step
fi

# Write the outcome of a step, as the summary shows it.
#   outcome NAME STATUS SECONDS TEXT
outcome() {
  printf '%-8s %-27s %4d s  %s\n' "$2" "$1" "$3" "$4" >"$scratch/$1.outcome"
  echo "$2: $1 ($3 s)"
}

# The figures of a step and what failed in it; if it told neither, the last line of its log.
#   told NAME
told() {
  local lines
  lines=$(sed -n -E 's/^(figure|failed|skipped): //p' "$folder/$1.log" | paste -s -d ';' | sed 's/;/; /g')
  [[ -n $lines ]] || lines=$(tail -n 1 "$folder/$1.log" | cut -c 1-300)
  printf '%s' "$lines"
}

# Run one step within its time limit and within what is left of the budget.
#   run_step NAME LIMIT_S SCRIPT [ARGUMENT...]
run_step() {
  local name=$1 limit=$(($2 * patience)) script=$3 started=$SECONDS left=$((budget - SECONDS)) code pid
  shift 3
  if ((left < 2)); then
    outcome "$name" skipped 0 "the budget of $budget s was used up"
    return
  fi
  # In the background, so that a signal reaches this shell at once. `timeout` leads a process group of its own,
  # of all that the step starts, and ends when the script does: what is left of the group is killed.
  CHECK_STEP=$name timeout --kill-after=5 "$((limit < left ? limit : left))" \
    "$python" -m "tests.gpu.$script" "$@" >"$folder/$name.log" 2>&1 </dev/null &
  pid=$!
  trap 'kill -KILL -- "-$pid" 2>/dev/null; exit 143' TERM
  wait "$pid"
  code=$?
  kill -KILL -- "-$pid" 2>/dev/null
  local seconds=$((SECONDS - started))
  case $code in
    0) outcome "$name" ok "$seconds" "$(told "$name")" ;;
    77) outcome "$name" skipped "$seconds" "$(told "$name")" ;;
    124 | 137)
      if ((limit <= left)); then
        outcome "$name" failed "$seconds" "did not end within $limit s; $(told "$name")"
      else
        outcome "$name" skipped "$seconds" "cut off when the budget of $budget s was used up; $(told "$name")"
      fi
      ;;
    *) outcome "$name" failed "$seconds" "$(told "$name")" ;;
  esac
}

# Start a step, if it is asked for.
begin() {
  [[ " ${CHECK_STEPS:-${STEPS[*]}} " == *" $1 "* ]] || return
  run_step "$@" &
}

# Run a step alone.
step() {
  begin "$@"
  wait
}

# Run a step beside others where the machine has room for it (see check_machine.py), else alone.
step_beside() {
  begin "$@"
  grep -qs '"runs_side_by_side": true' "$folder/machine.json" || wait
}

# Tracebacks of failed probes are in the cache.
trap 'cp "$XBENCH_CACHE_DIR"/probes/*.stderr "$folder" 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'running=$(jobs -p); [[ -z $running ]] || kill $running 2>/dev/null; wait; exit 130' INT TERM

step machine 20 check_machine
step doctor 30 check_doctor
step oom 45 check_oom
step tests 110 check_tests
step peak 45 check_peak
step step-time 60 check_step_time
step_beside micro-batches 75 check_micro_batches
step_beside repeat 150 check_repeat
step_beside resume 90 check_resume
step_beside capacity-sgd-batch-size 150 check_capacity sgd batch-size
step_beside capacity-adam-batch-size 150 check_capacity adam batch-size
step_beside capacity-lbfgs-train-size 150 check_capacity lbfgs train-size
step_beside capacity-sgd-micro-batch 150 check_capacity sgd micro-batch
step_beside capacity-adam-micro-batch 150 check_capacity adam micro-batch
step_beside capacity-lbfgs-history-size 150 check_capacity lbfgs history-size
wait
step first-step 60 check_first_step

{
  echo "xbench on $device, $(date -u +%Y-%m-%dT%H:%M:%SZ), $SECONDS s of $budget s"
  for name in "${STEPS[@]}"; do
    if [[ -f $scratch/$name.outcome ]]; then
      cat "$scratch/$name.outcome"
    fi
  done
} >"$folder/summary.txt"
echo
cat "$folder/summary.txt"
! grep -q '^failed' "$folder/summary.txt"
