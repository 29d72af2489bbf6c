#!/bin/bash
# What runs on a node: `job.sh participant FOLDER` as a task of the array, `job.sh group FOLDER`
# once. FOLDER is that of the submission; submit.sh wrote what is read here.
set -euo pipefail
level=$1 folder=$2 policy=
# shellcheck disable=SC1091
source "$folder/job.env"
events=$folder/${SLURM_ARRAY_TASK_ID:-group}.events
name='' child='' scratch=''

note() { printf '%s\t%s\t%s\t%s\n' "$name" "$1" "$(date +%s.%N)" "${2:-}" >>"$events"; }

# SLURM sends TERM at the time limit and at scancel, KILL half a minute later.
# shellcheck disable=SC2317,SC2329  # called by the trap
stopped() {
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
  [[ -z $name ]] || note exit 143
  [[ -z $scratch ]] || rm -rf "$scratch"
  exit 143
}
trap stopped TERM

# The program, native or in the container, with the options that the cluster's share of the node asks for.
run_app() { # level, work folder, options
  local command=("$APP") given path
  local share=(--nprocs "${SLURM_CPUS_PER_TASK:-1}")
  # SLURM's limit is for the job; the graph's is for its nodes: something is left for the program itself
  ((${SLURM_MEM_PER_NODE:-0} < 2048)) || share+=(--mem "$(((SLURM_MEM_PER_NODE - 1024) / 1024))")
  [[ -z $RESOURCES ]] || export BRAINLM_BIDS_HOME=$RESOURCES
  if [[ $APP == *.sif ]]; then
    command=(apptainer run --cleanenv --bind "$BIDS:$BIDS:ro" --bind "$OUT" --bind "$2")
    [[ -z $RESOURCES ]] || command+=(--bind "$RESOURCES" --env "BRAINLM_BIDS_HOME=$RESOURCES")
    for given in "${@:3}"; do # files and folders that the options name
      path=${given#*=}
      [[ $path != /* || ! -e $path || $path == *[:,]* ]] || command+=(--bind "$path")
    done
    ! command -v nvidia-smi >/dev/null || command+=(--nv)
    command+=("${APPTAINER_OPTIONS[@]}" "$APP")
  fi
  "${command[@]}" "$BIDS" "$OUT" "$1" --work-dir "$2" "${share[@]}" "${@:3}" &
  child=$!
  local code=0
  wait "$child" || code=$?
  child=''
  return "$code"
}

# One call with its own work folder. What failed in a shared scratch stays there, to be continued.
call() { # name, level, options
  local work code=0
  name=$1
  echo "== $name"
  if [[ -n $WORK ]]; then
    work=$WORK/$name
    mkdir -p "$work"
  else
    scratch=$(mktemp -d)
    work=$scratch
  fi
  note start
  run_app "$2" "$work" "${@:3}" || code=$?
  note exit "$code"
  if ((code == 0)) || [[ -z $WORK ]]; then rm -rf "$work"; fi
  name='' scratch=''
  return "$code"
}

# afterok looks at the jobs of one call; those of earlier calls count too.
refuse_group() {
  local table missing code=0
  table=$("$HERE/status.sh" --tsv "$OUT") || code=$?
  missing=$(awk -F '\t' 'NR == FNR {wanted[$1] = 1; next}
    ($1 in wanted) && $2 != "done" {print $1 " " $2}' "$folder/selected" - <<<"$table")
  ((code < 2)) || missing="the status of the participants is not known"
  [[ -n $missing ]] || return 1
  name=group
  echo "== group"
  note start
  echo "brainlm-bids: not run (afterok): ${missing//$'\n'/, }"
  note exit 3
}

if [[ $level == group ]]; then
  if [[ $policy == afterok ]] && refuse_group; then exit 3; fi
  call group group "${ARGS[@]}" "${GROUP_ARGS[@]}"
  exit
fi
first=$(((SLURM_ARRAY_TASK_ID - 1) * PER_TASK + 1))
worst=0
while IFS= read -r participant <&3; do
  code=0
  call "$participant" participant --participant-label "${participant#sub-}" "${ARGS[@]}" || code=$?
  ((code <= worst)) || worst=$code
done 3< <(tail -n "+$first" "$folder/participants" | head -n "$PER_TASK")
exit "$worst"
