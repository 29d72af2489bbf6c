# From "submission<TAB>file" and "table<TAB>time<TAB>file", oldest first, to a row per participant.
# Times are seconds since 1970; clocks of nodes and file servers may differ by SLACK.
BEGIN {
  SLACK = 60
  OFS = "\t"
  while ((getline line < queued) > 0) { split(line, part, " "); in_queue[part[1]] = part[2] }
}
$1 == "submission" { read_submission($2) }
$1 == "table" { read_table($3, $2 + 0) }
END {
  for (i = 1; i <= n_people; i++) judge(people[i])
  if (group_folder != "") judge_group()
}

function person(name) {
  if (!(name in known)) { known[name] = 1; people[++n_people] = name }
}

function read_submission(file,    folder, value, line, cell, number, task) {
  folder = file
  sub(/\/submission$/, "", folder)
  while ((getline line < file) > 0) { split(line, cell, "\t"); value[cell[1]] = cell[2] }
  close(file)
  number = 0
  while ((getline line < (folder "/participants")) > 0) {
    person(line)
    task = int(number / value["per_task"]) + 1
    number++
    job[line] = value["array"] "_" task
    log_of[line] = folder "/" task ".log"
    key[line] = value["key"]
    submitted[line] = value["time"]
    delete started[line]; delete ended[line]; delete code[line]
    if (task != seen_task || folder != seen_folder) read_events(folder "/" task ".events")
    seen_task = task; seen_folder = folder
  }
  close(folder "/participants")
  if (value["group"] != "") {
    group_folder = folder; group_job = value["group"]; policy = value["policy"]
    group_key = value["group_key"]; group_array = value["array"]
    delete started["group"]; delete ended["group"]; delete code["group"]
    read_events(folder "/group.events")
  }
}

# A task's events are read before the later ones of its participants are reset: kept aside.
function read_events(file,    line, cell) {
  while ((getline line < file) > 0) {
    split(line, cell, "\t")
    if (cell[2] == "start") { event_start[file, cell[1]] = cell[3] }
    else { event_end[file, cell[1]] = cell[3]; event_code[file, cell[1]] = cell[4] }
  }
  close(file)
}

function take_events(name, file) {
  if ((file SUBSEP name) in event_start) started[name] = event_start[file, name]
  if ((file SUBSEP name) in event_end) {
    ended[name] = event_end[file, name]; code[name] = event_code[file, name]
  }
}

# Rows of the group level are about series, not about runs: they are told by their source.
function read_table(file, time,    line, cell, column, n, i, name, source) {
  if ((getline line < file) > 0) {
    n = split(line, cell, "\t")
    for (i = 1; i <= n; i++) column[cell[i]] = i
  }
  while ((getline line < file) > 0) {
    split(line, cell, "\t")
    name = cell[column["participant_id"]]
    source = cell[column["source"]]
    if (name !~ /^sub-/ || source ~ /_atlas-[^_]+_desc-[^_]+_timeseries\.tsv$/) continue
    person(name)
    if (!((name SUBSEP source) in status)) sources[name] = sources[name] SUBSEP source
    status[name, source] = cell[column["status"]]
    reason[name, source] = cell[column["reason"]]
    row_time[name, source] = time
    if (cell[column["seconds"]] != "n/a") {
      seconds[name, source] = cell[column["seconds"]]
      memory[name, source] = cell[column["peak_memory_mb"]]
    }
    if (time > latest[name]) latest[name] = time
  }
  close(file)
}

function judge(name,    file, state, why, n, i, source, count, failed, total, peak, runs, word, order) {
  n = split(substr(sources[name], 2), source, SUBSEP)
  failed = ""; total = peak = 0
  for (i = 1; i <= n; i++) {
    word = status[name, source[i]]
    if (word == "cached") word = "done"
    count[word]++
    if (word == "failed" && (failed == "" || row_time[name, source[i]] > failed_time)) {
      failed = reason[name, source[i]]; failed_time = row_time[name, source[i]]
    }
    total += seconds[name, source[i]]
    if (memory[name, source[i]] + 0 > peak) peak = memory[name, source[i]] + 0
  }
  split("done skipped failed", order, " ")
  runs = ""
  for (i = 1; i <= 3; i++)
    if (order[i] in count) runs = runs (runs == "" ? "" : ", ") count[order[i]] " " order[i]
  state = failed == "" ? "done" : "failed"
  why = failed
  if (name in job) {
    file = log_of[name]
    sub(/\.log$/, ".events", file)
    take_events(name, file)
    if ((name in ended) && latest[name] <= ended[name] + SLACK) {
      state = code[name] == 0 ? "done" : "failed"
      if (state == "done") why = ""
      else if (failed == "" || failed_time < started[name] - SLACK) why = told(name, log_of[name])
    } else if (!(name in ended) && job[name] in in_queue) {
      state = (name in started) ? "running" : "pending"
      why = in_queue[job[name]] == "RUNNING" ? "" : tolower(in_queue[job[name]])
      if (why == state) why = ""
    } else if (!(name in ended) && latest[name] < submitted[name]) {
      state = "failed"
      why = told(name, log_of[name])
    } else if (!(name in ended) && (name in started) && latest[name] < started[name]) {
      state = "failed"
      why = told(name, log_of[name])
    }
  }
  print name, state, (runs == "" ? "n/a" : runs), (total ? sprintf("%.0f", total) : "n/a"), \
    (peak ? sprintf("%.0f", peak) : "n/a"), (why == "" ? "n/a" : why), \
    (name in key ? key[name] : "n/a"), (name in started ? started[name] : "n/a")
}

# Why a task ended, from its exit code and its log: what SLURM said, else what the program said last.
function told(name, file,    line, inside, said, own, killer, text) {
  inside = 0
  while ((getline line < file) > 0) {
    if (line ~ /^== sub-/ || line == "== group") inside = line == "== " name
    if (line ~ /DUE TO TIME LIMIT/) killer = "the time limit was reached: give more --time in site.sh"
    else if (line ~ /[Oo]ut [Oo]f [Mm]emory|oom.kill|OOM/ && line ~ /slurm/)
      killer = "out of memory: give more --mem in site.sh"
    else if (line ~ /CANCELLED AT/ && killer == "") killer = "the job was cancelled"
    else if (line ~ /DUE TO NODE FAILURE|NODE_FAIL/) killer = "its node failed"
    if (inside && line ~ /[^ \t]/ && line !~ /^slurmstepd/) {
      said = line
      if (line ~ /^brainlm-bids: /) own = substr(line, 15)
    }
  }
  close(file)
  gsub(/\t/, " ", said)
  if (name in code) text = "exit code " code[name]
  else if (name in started) text = "stopped without an exit code"
  else text = "never started"
  if (code[name] == 137 && killer == "") killer = own ~ /memory/ ? own : "killed, probably out of memory"
  if (killer != "") return text ": " killer
  if (own != "") return text ": " own
  if (said != "") return text ": " said
  return text (name in started ? "; see " file : ": cancelled, or SLURM gave up; see " file)
}

function judge_group(    state, why) {
  take_events("group", group_folder "/group.events")
  why = "n/a"
  if ("group" in ended) {
    state = code["group"] == 0 ? "done" : "failed"
    if (state == "failed") why = told("group", group_folder "/group.log")
  } else if (group_job in in_queue) {
    state = ("group" in started) ? "running" : "pending"
    if (state == "pending") why = "waits for the participants (" policy ")"
  } else {
    state = "failed"
    why = ("group" in started) ? told("group", group_folder "/group.log") \
      : "not run: a participant failed or was cancelled (" policy ")"
  }
  print "group", state, "n/a", "n/a", "n/a", why, group_key, \
    ("group" in started ? started["group"] : "n/a")
}
