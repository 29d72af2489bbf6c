#!/bin/bash
# status.sh [--tsv] OUTPUT_DIR      a table of the participants: done, running, pending, failed and why
#
# Read from the status tables of brainlm-bids, the logs of the jobs, and squeue; sacct is not needed.
# --tsv prints columns participant_id, state, runs, seconds, peak_memory_mb, reason for a program.
# Exit code: 0, or 1 if something failed.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib.sh source-path=SCRIPTDIR
source "$HERE/lib.sh"

tsv=0
if [[ ${1:-} == --tsv ]]; then
  tsv=1
  shift
fi
if (($# != 1)) || [[ $1 == -* ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
[[ -d $1/logs ]] || die "$1 has no folder logs: nothing was run here"
OUT=$(cd "$1" && pwd)
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
queue >"$temporary/queue" || die "squeue did not answer"
states "$OUT" "$temporary/queue" | cut -f 1-6 | sort -t $'\t' -k 1,1 >"$temporary/states"

HEADER=$'participant_id\tstate\truns\tseconds\tpeak_memory_mb\treason'
{ echo "$HEADER"; grep -v $'^group\t' "$temporary/states" || true; grep $'^group\t' "$temporary/states" || true; } >"$temporary/table"
if ((tsv)); then
  cat "$temporary/table"
else
  awk -F '\t' 'NR == FNR {for (i = 1; i < NF; i++) if (length($i) > width[i]) width[i] = length($i); next}
    {for (i = 1; i < NF; i++) printf "%-*s  ", width[i], $i; print $NF == "n/a" ? "" : $NF}' \
    "$temporary/table" "$temporary/table"
  awk -F '\t' 'NR > 1 && $1 != "group" {count[$2]++}
    END {split("done running pending failed", order, " ")
      for (i = 1; i <= 4; i++) if (order[i] in count) text = text (text == "" ? "" : ", ") count[order[i]] " " order[i]
      print (text == "" ? "nobody yet" : text)}' "$temporary/table"
fi
! grep -q $'^[^\t]*\tfailed\t' "$temporary/states"
