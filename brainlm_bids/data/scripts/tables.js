// Sorts <table data-sortable> by the column whose heading is pressed: by `data-value` of the cells, or
// else by their text. Numbers are compared as numbers, what is missing stays last, equal rows keep
// their order. A heading with data-unsortable is left alone.
(function () {
  "use strict";
  const MISSING = ["", "n/a", "–", "-", "nan", "none"];
  const NUMBER = /^[+\-−]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*(%|°|[a-zµ]{1,3})?$/i;
  const order = new Intl.Collator(document.documentElement.lang, { numeric: true }).compare;

  function keys(rows, column) {
    const texts = rows.map(function (row) {
      const cell = row.cells[column];
      if (!cell) return "";
      return (cell.dataset.value === undefined ? cell.textContent : cell.dataset.value).trim();
    });
    const known = texts.map((text) => !MISSING.includes(text.toLowerCase()));
    const numeric = texts.every((text, at) => !known[at] || NUMBER.test(text));
    return texts.map(function (text, at) {
      if (!known[at]) return null;
      return numeric ? parseFloat(text.replace("−", "-")) : text;
    });
  }

  function sort(table, column, direction) {
    const bodies = Array.from(table.tBodies);
    const sizes = bodies.map((body) => body.rows.length);
    const rows = bodies.flatMap((body) => Array.from(body.rows));
    const values = keys(rows, column);
    const places = rows.map((_, at) => at);
    places.sort(function (a, b) {
      const [one, other] = [values[a], values[b]];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      const by = typeof one === "number" ? one - other : order(one, other);
      return direction * by || a - b;
    });
    // a long table has its rows in several bodies, which keep their sizes
    let done = 0;
    bodies.forEach(function (body, at) {
      body.append(...places.slice(done, done + sizes[at]).map((place) => rows[place]));
      done += sizes[at];
    });
    table.dispatchEvent(new CustomEvent("sorted"));
  }

  document.querySelectorAll("table[data-sortable]").forEach(function (table) {
    if (!table.tHead || !table.tBodies.length) return;
    const cells = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    cells.forEach(function (cell, column) {
      if (cell.hasAttribute("data-unsortable")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        const upwards = cell.getAttribute("aria-sort") !== "ascending";
        cells.forEach((one) => one.hasAttribute("aria-sort") && one.setAttribute("aria-sort", "none"));
        cell.setAttribute("aria-sort", upwards ? "ascending" : "descending");
        sort(table, column, upwards ? 1 : -1);
      });
    });
  });
})();
