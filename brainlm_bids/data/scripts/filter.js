// Filters a table by controls with data-filter-for: a text, selects, check boxes. A row has what it is
// filtered by as data-… attributes. The state is the fragment of the address, so that a link to
// `#status=failed` shows what failed. The table hears "filtered" when its rows have changed.
(function () {
  "use strict";
  const controls = Array.from(document.querySelectorAll("[data-filter-for]"));
  if (!controls.length) return;
  const table = document.getElementById(controls[0].dataset.filterFor);
  const bodies = Array.from(table.tBodies);
  const rows = bodies.flatMap((body) => Array.from(body.rows));
  const count = document.querySelector("[data-filter-count]");
  const headings = Array.from(table.querySelectorAll("thead th"));
  let texts = null;

  function value(control) {
    if (control.type === "checkbox") return control.checked ? "1" : "";
    return control.value.trim();
  }

  function fits(row, place, wanted) {
    return wanted.every(function ([key, sought]) {
      if (key === "text") return sought.toLowerCase().split(/\s+/).every((word) => texts[place].includes(word));
      const own = row.dataset[key] || "";
      return sought === "any" ? own !== "" : own === sought;
    });
  }

  // A part of the table that is out of view is taken for as high as its visible rows
  function measure() {
    bodies.forEach(function (body) {
      const visible = Array.from(body.rows).filter((row) => !row.hidden).length;
      body.hidden = visible === 0;
      body.style.setProperty("--rows", visible);
    });
  }

  function apply() {
    const wanted = controls.map((one) => [one.dataset.filter, value(one)]).filter((pair) => pair[1]);
    if (!texts && wanted.some((pair) => pair[0] === "text")) {
      texts = rows.map((row) => row.textContent.toLowerCase());
    }
    let shown = 0;
    rows.forEach(function (row, place) {
      const hide = !fits(row, place, wanted);
      if (row.hidden !== hide) row.hidden = hide;
      if (!hide) shown += 1;
    });
    measure();
    if (count) count.textContent = `${shown} of ${rows.length} recordings`;
    table.dispatchEvent(new CustomEvent("filtered"));
    return wanted;
  }

  function sorted() {
    const heading = headings.find((one) => /^(a|de)scending$/.test(one.getAttribute("aria-sort")));
    if (!heading) return [];
    return [["sort", `${headings.indexOf(heading)}.${heading.getAttribute("aria-sort")[0]}`]];
  }

  function write() {
    const state = new URLSearchParams(apply().concat(sorted())).toString();
    // an empty fragment would scroll to the top
    history.replaceState(null, "", `#${state || table.closest("section").id}`);
  }

  function read() {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return;
    const state = new URLSearchParams(hash);
    controls.forEach(function (one) {
      const wanted = state.get(one.dataset.filter) || "";
      if (one.type === "checkbox") one.checked = wanted !== "";
      else one.value = wanted;
      if (one.selectedIndex === -1) one.value = "";
    });
    apply();
    const [place, direction] = (state.get("sort") || "").split(".");
    const button = headings[place] && headings[place].querySelector("button");
    for (let turn = 0; button && turn < 2; turn += 1) {
      if ((headings[place].getAttribute("aria-sort") || "")[0] === direction) break;
      button.click();
    }
    table.closest("section").scrollIntoView();
  }

  document.querySelectorAll(".needs-script").forEach((one) => { one.hidden = false; });
  let waiting = 0;
  controls.forEach(function (one) {
    one.addEventListener("input", function () {
      clearTimeout(waiting);
      waiting = setTimeout(write, one.type === "search" ? 120 : 0);
    });
  });
  function clear() {
    controls.forEach(function (one) {
      if (one.type === "checkbox") one.checked = false;
      else one.value = "";
    });
    write();
  }

  // The rows that are shown, in their order, as text with tabs
  function save() {
    const kept = headings.map((_, place) => place).filter((place) => !headings[place].hasAttribute("data-unsortable"));
    const line = (cells) => kept.map((place) => cells[place].textContent.trim().replace(/\s+/g, " ")).join("\t");
    const shown = Array.from(table.querySelectorAll("tbody tr")).filter((row) => !row.hidden);
    const text = [line(headings), ...shown.map((row) => line(row.cells))].join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/tab-separated-values" }));
    link.download = `${table.id}.tsv`;
    link.click();
  }

  document.addEventListener("click", function (event) {
    const button = event.target.closest("button[data-filter-action]");
    if (button) (button.dataset.filterAction === "save" ? save : clear)();
  });
  table.tHead.addEventListener("click", (event) => event.isTrusted && event.target.closest("button") && write());
  table.addEventListener("sorted", measure);
  addEventListener("hashchange", read);
  document.addEventListener("ratings", apply);
  read();
})();
