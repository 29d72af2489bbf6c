#!/bin/bash
# submit.sh [options] BIDS_DIR OUTPUT_DIR [options of brainlm-bids] [--for-group options of the group level]
#
# Submits one array of participants to CPU nodes, and one GPU job for the group level after it.
# Participants that are complete, pending or running are left alone: the same call again submits
# only what is missing. The cluster is described in site.sh, beside this file.
#
#   --group afterok    the group job runs if every participant is complete, else never (default)
#   --group afterany   the group job runs with what is there when the last participant has ended
#   --group none       no group job
#   --participant-label LABEL…   only these (default: all sub-* folders of BIDS_DIR)
#   --again            submit complete participants too (the app still computes only what is missing)
#   --dry-run          say what would be submitted, and stop
#   --site FILE        another file than site.sh
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib.sh source-path=SCRIPTDIR
source "$HERE/lib.sh"

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
  exit "$1"
}

# --- arguments --------------------------------------------------------------------------------

policy=afterok again=0 dry_run=0 site=$HERE/site.sh
labels=() places=() ARGS=() GROUP_ARGS=()
while (($#)); do
  case $1 in
    -h | --help) usage 0 ;;
    --group) policy=${2:?--group afterok|afterany|none}; shift 2 ;;
    --again) again=1; shift ;;
    --dry-run) dry_run=1; shift ;;
    --site) site=${2:?--site FILE}; shift 2 ;;
    --participant-label | --participant_label)
      shift
      while (($#)) && [[ $1 != -* ]]; do labels+=("sub-${1#sub-}"); shift; done ;;
    --participant-label=* | --participant_label=*) labels+=("sub-${1#*=}"); labels=("${labels[@]/sub-sub-/sub-}"); shift ;;
    --for-group) shift; GROUP_ARGS=("$@"); break ;;
    -w | --work-dir | --work_dir | --work-dir=* | --work_dir=*) die "$1: set WORK in $site" ;;
    *)
      if ((${#places[@]} < 2)); then
        [[ $1 != -* ]] || die "unknown option $1; options of brainlm-bids come after OUTPUT_DIR"
        places+=("$1")
      else
        ARGS+=("$1")
      fi
      shift ;;
  esac
done
((${#places[@]} == 2)) || usage 2 >&2
[[ $policy =~ ^(afterok|afterany|none)$ ]] || die "--group $policy: is none of afterok, afterany, none"
[[ -d ${places[0]} ]] || die "BIDS_DIR ${places[0]} is not a folder"
[[ -r $site ]] || die "--site $site: there is no such file"
for word in "${ARGS[@]}"; do
  [[ $word != participant && $word != group ]] || die "$word: the levels are submitted by themselves; leave it out"
done
BIDS=$(cd "${places[0]}" && pwd)
[[ $(realpath -m "${places[1]}") != $(realpath -m "$BIDS") ]] || die "OUTPUT_DIR is BIDS_DIR: nothing may be written into the raw data"
OUT=$(realpath -m "${places[1]}")
((dry_run)) || mkdir -p "$OUT/logs/slurm" || die "OUTPUT_DIR $OUT cannot be made"

APP=brainlm-bids CPU=() GPU=() RESOURCES='' WORK='' AT_ONCE=0 PER_TASK=1 APPTAINER_OPTIONS=()
# shellcheck source=site.sh source-path=SCRIPTDIR
source "$site"
[[ $PER_TASK =~ ^[1-9][0-9]*$ ]] || die "$site: PER_TASK=$PER_TASK is not a whole number, 1 or more"
[[ $AT_ONCE =~ ^[0-9]+$ ]] || die "$site: AT_ONCE=$AT_ONCE is not a whole number"
if [[ $APP == *.sif ]]; then
  [[ -r $APP ]] || die "$site: APP=$APP: there is no such image"
  APP=$(readlink -f "$APP")
  version=$(stat -c '%s %Y' "$APP")
  [[ "$BIDS$OUT$WORK$RESOURCES" != *[:,]* ]] || die "Apptainer cannot bind a path with a colon or a comma"
else
  version=$("$APP" --version 2>&1) || die "$site: APP=$APP cannot be run: ${version##*$'\n'}"
fi

# --- who --------------------------------------------------------------------------------------

if ((${#labels[@]} == 0)); then
  for folder in "$BIDS"/sub-*/; do
    [[ -d $folder ]] && labels+=("$(basename "$folder")")
  done
  ((${#labels[@]})) || die "$BIDS has no sub-* folder; say which with --participant-label"
else
  for label in "${labels[@]}"; do
    [[ -d $BIDS/$label ]] || die "$BIDS has no $label"
  done
fi
for label in "${labels[@]}"; do
  [[ $label =~ ^sub-[A-Za-z0-9+]+$ ]] || die "$(printf '%q' "$label"): BIDS labels have letters and digits only; rename it"
done

key=$(printf '%s\0' "$version" "$APP" "$BIDS" "${ARGS[@]}" | sha256sum | cut -c 1-12)
group_key=$(printf '%s\0' "$key" "${GROUP_ARGS[@]}" | sha256sum | cut -c 1-12)

if ((!dry_run)); then
  exec 9>"$OUT/logs/slurm/.lock"
  flock -w 300 9 || die "another submit.sh holds $OUT/logs/slurm/.lock"
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
queue >"$temporary/queue" || die "squeue did not answer: whether jobs wait or run is not known, so nothing is submitted"
states "$OUT" "$temporary/queue" >"$temporary/states"

declare -A state=() key_of=() started=()
while IFS=$'\t' read -r name what _ _ _ _ made begun; do
  state[$name]=$what key_of[$name]=$made started[$name]=$begun
done <"$temporary/states"

# Complete: done by this configuration, and nothing of its raw data has changed since it began.
complete() {
  [[ ${state[$1]:-} == "done" && ${key_of[$1]} == "$key" && ${started[$1]} != n/a ]] || return 1
  [[ -z $(find -L "$BIDS/$1" -newerct "@${started[$1]}" -print -quit) ]]
}

todo=() n_complete=0 in_flight=0
for label in "${labels[@]}"; do
  if [[ ${state[$label]:-} =~ ^(pending|running)$ ]]; then
    in_flight=$((in_flight + 1))
  elif ((!again)) && complete "$label"; then
    n_complete=$((n_complete + 1))
  else
    todo+=("$label")
  fi
done
echo "${#labels[@]} participants: $n_complete complete, $in_flight pending or running, ${#todo[@]} to submit"

# --- what -------------------------------------------------------------------------------------

tasks=$(((${#todo[@]} + PER_TASK - 1) / PER_TASK))
largest=$(scontrol show config 2>/dev/null | awk '$1 == "MaxArraySize" {print $3 - 1}')
largest=${largest:-1000}
if ((tasks > largest)); then
  enough=$(((${#todo[@]} + largest - 1) / largest))
  die "$tasks tasks, and this cluster's arrays have at most $largest: set PER_TASK=$enough or more in $site, and --time for as many"
fi
folder=$OUT/logs/slurm/$(date +%Y%m%d-%H%M%S)_$$
submission=${folder//%/%%} # sbatch has patterns with % in the names of logs

# Array and group jobs of earlier calls that SLURM still has, each once.
earlier() { # array|group …
  [[ -d $OUT/logs/slurm ]] || return 0
  find "$OUT/logs/slurm" -mindepth 2 -maxdepth 2 -name submission -exec cat {} + |
    awk -F '\t' -v kinds=" $* " 'NR == FNR {split($1, part, /[_ ]/); there[part[1]] = 1; next}
      index(kinds, " " $1 " ") && ($2 in there) {print $2}' "$temporary/queue" -
}

range=1-$tasks
((AT_ONCE == 0)) || range+=%$AT_ONCE
array_command=(sbatch --parsable "--job-name=$JOB_NAME" --no-requeue "${CPU[@]}" "--array=$range"
  "--output=$submission/%a.log" "$HERE/job.sh" participant "$folder")
group_command() {
  local after=
  [[ -z $array ]] || after=",$policy:$array"
  after+=$(earlier array group | sed 's/^/,afterany:/' | tr -d '\n')
  group_submit=(sbatch --parsable "--job-name=$JOB_NAME-group" --no-requeue "${GPU[@]}")
  [[ -z $after ]] || group_submit+=("--dependency=${after#,}" --kill-on-invalid-dep=yes)
  group_submit+=("--output=$submission/group.log" "$HERE/job.sh" group "$folder")
}

want_group=0
if [[ $policy != none ]]; then
  want_group=1
  # nothing new, and the same group job is done, or waits or runs already
  if ((${#todo[@]} == 0 && !again)) && [[ ${state[group]:-} =~ ^(done|pending|running)$ && ${key_of[group]} == "$group_key" ]]; then
    want_group=0
    echo "group: ${state[group]} already"
  fi
fi
if ((dry_run)); then
  printf '  %s\n' "${todo[@]}"
  ((tasks == 0)) || { printf '%q ' "${array_command[@]}"; echo; }
  if ((want_group)); then
    array=$( ((tasks == 0)) || echo ARRAY)
    group_command
    printf '%q ' "${group_submit[@]}"
    echo
  fi
  exit 0
fi
if ((tasks == 0 && !want_group)); then
  echo "nothing to submit"
  exit 0
fi

# --- go ---------------------------------------------------------------------------------------

mkdir "$folder"
: >"$folder/participants"
((tasks == 0)) || printf '%s\n' "${todo[@]}" >"$folder/participants"
printf '%s\n' "${labels[@]}" >"$folder/selected"
declare -p HERE APP BIDS OUT ARGS GROUP_ARGS RESOURCES WORK PER_TASK APPTAINER_OPTIONS policy >"$folder/job.env"

record() { # what SLURM calls the jobs; without it, nobody would know of them
  printf '%s\t%s\n' key "$key" group_key "$group_key" array "$array" group "$group" \
    policy "$policy" per_task "$PER_TASK" time "$(date +%s)" >"$folder/.submission"
  mv "$folder/.submission" "$folder/submission"
}

array='' group=''
if ((tasks)); then
  array=$("${array_command[@]}") || { rm -r "$folder"; die "sbatch refused the array (see above); nothing was submitted"; }
  array=${array%%;*}
fi
record
if ((want_group)); then
  group_command
  # one group job waits at a time: this one takes the place of an earlier one
  for old in $(earlier group); do scancel --state=PENDING "$old" || true; done
  group=$("${group_submit[@]}") || echo "submit.sh: sbatch refused the group job (see above); the participants were submitted" >&2
  group=${group%%;*}
  record
fi
[[ -z $array ]] || echo "array $array: $tasks tasks"
[[ -z $group ]] || echo "group $group: $policy"
echo "look: $HERE/status.sh $OUT"
((!want_group)) || [[ -n $group ]] || exit 2
