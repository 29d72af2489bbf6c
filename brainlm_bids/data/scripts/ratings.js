// Ratings of recordings: kept in this browser, moved in and out as a TSV for `group --ratings`.
// Sections of recordings carry data-recording; cells of tables that show ratings data-rating.
(function () {
  "use strict";
  const panel = document.getElementById("ratings");
  if (!panel) return;
  const COLUMNS = ["recording", "rating", "reasons", "note", "rater", "rated"];
  const VERDICTS = { p: "pass", d: "doubtful", f: "fail" };
  const folder = location.href.replace(/[^/]*$/, "").replace(/[?#].*/, "");
  const KEY = "brainlm-bids ratings of " + folder;
  const OPTIONS = "brainlm-bids rating options";
  const field = (name) => panel.querySelector(`[data-field="${name}"]`);
  const sections = Array.from(document.querySelectorAll("[data-recording]"));
  let memory = {};
  let current = 0;
  let steered = 0;

  function load(key) {
    try { return JSON.parse(localStorage.getItem(key)) || {}; } catch (error) { return key === KEY ? memory : {}; }
  }
  function store(key, value) {
    if (key === KEY) memory = value;
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch (error) {
      say("This browser keeps nothing for this page: export the ratings before you leave it.");
    }
  }
  const clean = (text) => String(text || "").replace(/\s+/g, " ").trim();
  function say(text) { field("status").textContent = text; }

  // --- what is shown
  function show() {
    const ratings = load(KEY);
    document.querySelectorAll("[data-rating]").forEach(function (cell) {
      const rating = (ratings[cell.dataset.rating] || {}).rating || "";
      cell.parentElement.dataset.rated = rating || "unrated";
      if ((cell.dataset.value || "") === rating) return;
      cell.textContent = rating || "–";
      cell.dataset.value = rating;
      cell.className = rating ? `rated ${rating}` : "";
    });
    document.dispatchEvent(new CustomEvent("ratings"));
    const rated = Object.values(ratings).filter((one) => one.rating).length;
    field("count").textContent = `${rated} rated`;
    if (!sections.length) return;
    const name = sections[current].dataset.recording;
    const one = ratings[name] || {};
    field("recording").textContent = name;
    panel.querySelectorAll("[data-verdict]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.verdict === one.rating)));
    const reasons = (one.reasons || "").split(", ");
    panel.querySelectorAll("[data-reason]").forEach((box) => { box.checked = reasons.includes(box.dataset.reason); });
    if (document.activeElement !== field("note")) field("note").value = one.note || "";
  }
  function change(values) {
    const ratings = load(KEY);
    const name = sections[current].dataset.recording;
    const one = Object.assign({ rating: "", reasons: "", note: "" }, ratings[name], values);
    one.rater = clean(field("rater").value);
    one.rated = new Date().toISOString();
    ratings[name] = one;
    if (!one.rating && !one.reasons && !one.note) delete ratings[name];
    store(KEY, ratings);
    show();
  }
  function rate(verdict) {
    const known = (load(KEY)[sections[current].dataset.recording] || {}).rating;
    change({ rating: known === verdict ? "" : verdict });
    say(known === verdict ? "Rating removed." : `Rated ${verdict}.`);
    if (known !== verdict && field("move").checked) go(current + 1);
  }
  function reasons() {
    const boxes = Array.from(panel.querySelectorAll("[data-reason]"));
    change({ reasons: boxes.filter((box) => box.checked).map((box) => box.dataset.reason).join(", ") });
  }

  // --- from recording to recording, and on to the next subject
  function go(place) {
    if (place >= 0 && place < sections.length) {
      current = place;
      steered = Date.now();
      sections[place].scrollIntoView({ behavior: "instant" });
      show();
      return;
    }
    const link = document.querySelector(place < 0 ? "nav a[rel='prev']" : "nav a[rel='next']");
    if (link) location.href = link.href + (place < 0 ? "#last-recording" : "#first-recording");
    else say(place < 0 ? "This is the first recording." : "This is the last recording.");
  }
  function follow() {
    if (Date.now() - steered < 500) return; // a short last section may not reach the top
    const passed = sections.filter((one) => one.getBoundingClientRect().top < innerHeight / 2);
    const place = Math.max(passed.length - 1, 0);
    if (place !== current) { current = place; show(); }
  }

  // --- in and out
  function toTable() {
    const ratings = load(KEY);
    const rows = Object.keys(ratings).sort().map((name) =>
      COLUMNS.map((column) => clean(column === "recording" ? name : ratings[name][column]) || "n/a").join("\t"));
    return [COLUMNS.join("\t"), ...rows].join("\n") + "\n";
  }
  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([toTable()], { type: "text/tab-separated-values" }));
    link.download = "ratings.tsv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say("Exported as ratings.tsv.");
  }
  function merge(text) {
    const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter((line) => line.trim());
    const names = (lines.shift() || "").split("\t").map(clean);
    if (!names.includes("recording") || !names.includes("rating")) {
      say("Not imported: the file has no columns recording and rating.");
      return;
    }
    const ratings = load(KEY);
    let taken = 0;
    let left = 0;
    lines.forEach(function (line) {
      const cells = line.split("\t").map(clean);
      const row = {};
      names.forEach((name, place) => { row[name] = cells[place] && cells[place] !== "n/a" ? cells[place] : ""; });
      const rating = row.rating.toLowerCase();
      const known = ratings[row.recording];
      const valid = row.recording && (!rating || Object.values(VERDICTS).includes(rating));
      if (!valid || (known && (known.rated || "") > (row.rated || ""))) { left += 1; return; }
      ratings[row.recording] = { rating: rating, reasons: row.reasons || "", note: row.note || "",
        rater: row.rater || "", rated: row.rated || "" };
      taken += 1;
    });
    store(KEY, ratings);
    show();
    say(`Imported ${taken} ratings` + (left ? `; ${left} rows were older than those here, or no ratings.` : "."));
  }

  // --- what the reader does
  panel.addEventListener("click", function (event) {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.verdict) rate(button.dataset.verdict);
    else if (button.dataset.go) go(current + Number(button.dataset.go));
    else if (button.dataset.action === "export") download();
    else if (button.dataset.action === "import") field("file").click();
  });
  panel.addEventListener("change", function (event) {
    const name = event.target.dataset.field;
    if (event.target.dataset.reason) reasons();
    else if (name === "note") change({ note: clean(event.target.value) });
    else if (name === "file" && event.target.files.length) {
      event.target.files[0].text().then(merge);
      event.target.value = "";
    } else store(OPTIONS, { rater: clean(field("rater").value), move: field("move").checked, keys: field("keys").checked });
  });
  document.addEventListener("keydown", function (event) {
    const busy = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (busy && event.key === "Escape") event.target.blur();
    if (busy || !field("keys").checked || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "e") download();
    if (!sections.length) return;
    const boxes = panel.querySelectorAll("[data-reason]");
    if (VERDICTS[event.key]) rate(VERDICTS[event.key]);
    else if (event.key === "j") go(current + 1);
    else if (event.key === "k") go(current - 1);
    else if (event.key === "n") { field("note").focus(); event.preventDefault(); }
    else if (boxes[Number(event.key) - 1]) { boxes[Number(event.key) - 1].checked ^= 1; reasons(); }
  });
  addEventListener("storage", function (event) { if (event.key === KEY) show(); });
  addEventListener("scroll", follow, { passive: true });

  const options = load(OPTIONS);
  field("rater").value = options.rater || "";
  field("move").checked = Boolean(options.move);
  field("keys").checked = options.keys !== false;
  panel.hidden = false;
  const named = sections.findIndex((one) => "#" + one.id === decodeURIComponent(location.hash));
  if (location.hash === "#last-recording") go(sections.length - 1);
  else if (location.hash === "#first-recording") go(0);
  else { current = Math.max(named, 0); show(); }
})();
