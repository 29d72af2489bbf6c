# shellcheck shell=bash
# What submit.sh, status.sh and job.sh share. Each submission has a folder OUT/logs/slurm/<time>_<pid>/:
#   participants    one a line; task n of the array takes lines (n-1)*per_task+1 … n*per_task
#   selected        all that the call was for, complete ones too
#   submission      key<TAB>value: key, group_key, array, group, policy, per_task, time
#   job.env         variables of the job      <n>.log, group.log   what the tasks said
#   <n>.events, group.events                  participant, start|exit, seconds since 1970, exit code

JOB_NAME=brainlm-bids

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

# The array tasks and group jobs that SLURM has, "<job>_<task> STATE" or "<job> STATE" a line.
queue() {
  squeue --noheader --array --name="$JOB_NAME,$JOB_NAME-group" --format='%F_%K %T' | sed 's|_N/A||'
}

# What became of everybody, from the submissions, the queue (a file) and the status tables:
# participant, state, runs, seconds, MB, reason, key, start.   A last row "group" if one was submitted.
states() {
  local out=$1 queued=$2
  [[ -d $out/logs ]] || return 0
  {
    find "$out/logs/slurm" -mindepth 2 -maxdepth 2 -name submission -print 2>/dev/null | sort | sed 's|^|submission\t|'
    find "$out/logs" -maxdepth 1 -name '*_status.tsv' -printf '%T@\t%p\n' 2>/dev/null | sort -n | sed 's|^|table\t|'
  } | awk -F '\t' -v queued="$queued" -f "$HERE/states.awk"
}
