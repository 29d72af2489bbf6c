// Strip plots beside a table: a dot under the pointer names its recording, shows it in all other plots
// and in the table, and opens its report when pressed; a row under the pointer or with the focus shows
// its dots. The n-th dot is that of the n-th row with a number in the column of the same measure.
(function () {
  "use strict";
  const table = document.getElementById("recordings");
  const plots = Array.from(document.querySelectorAll("svg[data-strip]"));
  if (!table || !plots.length) return;
  const SVG = "http://www.w3.org/2000/svg";
  const NEAR = 16;
  const rows = Array.from(table.tBodies).flatMap((body) => Array.from(body.rows));
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  let here = null;

  const strips = plots.map(function (svg) {
    const heading = table.querySelector(`th[data-measure="${svg.dataset.strip}"]`);
    return { svg, heading, column: heading.cellIndex, dots: null, mark: null };
  });

  // Taken apart when first needed: a page with thousands of rows opens sooner
  function dots(strip) {
    if (strip.dots) return strip.dots;
    const path = strip.svg.querySelector(".dots").getAttribute("d");
    const places = path.split("M").slice(1).map((one) => one.slice(0, -2).split(" ").map(Number));
    const having = rows.filter((row) => row.cells[strip.column].textContent !== "–");
    strip.dots = new Map(having.map((row, at) => [row, places[at]]));
    strip.odd = new Set(having.filter((row) => row.cells[strip.column].className === "odd"));
    return strip.dots;
  }

  function nearest(strip, event) {
    const box = strip.svg.getBoundingClientRect();
    const scale = 800 / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let [found, least] = [null, NEAR * NEAR * Math.max(1, scale)];
    dots(strip).forEach(function (place, row) {
      const far = (place[0] - x) ** 2 + (place[1] - y) ** 2;
      if (far < least && !row.hidden) [found, least] = [row, far];
    });
    return found;
  }

  function show(row) {
    if (row === here) return;
    if (here) here.classList.remove("here");
    here = row;
    if (row) row.classList.add("here");
    strips.forEach(function (strip) {
      const place = row && dots(strip).get(row);
      if (!strip.mark) {
        strip.mark = document.createElementNS(SVG, "circle");
        strip.mark.setAttribute("class", "here");
        strip.mark.setAttribute("r", "9");
        strip.svg.append(strip.mark);
      }
      strip.mark.style.display = place ? "" : "none";
      if (place) {
        strip.mark.setAttribute("cx", place[0]);
        strip.mark.setAttribute("cy", place[1]);
      }
    });
  }

  function tell(strip, row, event) {
    if (!row) {
      tip.textContent = "";
      return;
    }
    const cell = row.cells[strip.column];
    const reason = cell.title ? `, ${cell.title}` : "";
    tip.textContent = `${row.cells[0].textContent}: ${strip.heading.textContent} ${cell.textContent}${reason}`;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    const below = event.clientY + 18;
    tip.style.top = `${below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below}px`;
  }

  function open(row) {
    const link = row.querySelector("a");
    if (link) link.click();
    else row.scrollIntoView({ block: "center" });
  }

  strips.forEach(function (strip) {
    let touched = null;
    strip.svg.addEventListener("pointermove", function (event) {
      const row = nearest(strip, event);
      show(row);
      tell(strip, row, event);
      strip.svg.style.cursor = row ? "pointer" : "";
    });
    strip.svg.addEventListener("pointerleave", function () {
      show(null);
      tip.textContent = "";
    });
    strip.svg.addEventListener("click", function (event) {
      const row = nearest(strip, event);
      // a finger cannot point without pressing: the first touch names the dot, the second opens it
      if (event.pointerType === "touch" && row !== touched) {
        touched = row;
        show(row);
        tell(strip, row, event);
      } else if (row) {
        open(row);
      }
    });
  });

  const rowOf = (event) => event.target.closest("tbody tr");
  table.addEventListener("pointerover", (event) => show(rowOf(event)));
  table.addEventListener("pointerleave", () => show(null));
  table.addEventListener("focusin", (event) => show(rowOf(event)));

  table.addEventListener("filtered", function () {
    strips.forEach(function (strip) {
      const path = (chosen) => Array.from(dots(strip)).filter(([row]) => !row.hidden && chosen(row))
        .map(([, place]) => `M${place[0]} ${place[1]}h0`).join("");
      strip.svg.querySelector(".dots").setAttribute("d", path(() => true));
      strip.svg.querySelector(".marked").setAttribute("d", path((row) => strip.odd.has(row)));
    });
    show(null);
  });
})();
