// The maps of a cohort, [data-scatter]: chooses the map and the variable that colours it, names the
// recording under the pointer or the arrow keys in all panels, and leads to its section. What is drawn
// comes from the attribute; see report/embedding_map.py.
(function () {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const REACH = 60;

  function add(parent, name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return parent.appendChild(element);
  }

  function start(box) {
    const data = JSON.parse(box.dataset.scatter);
    const part = (name, within) => (within || box).querySelector(`[data-part="${name}"]`);
    const chosen = { variable: part("variable"), view: part("view") };
    const panels = Array.from(box.querySelectorAll(".panel"), function (element, number) {
      const svg = element.querySelector("svg");
      svg.setAttribute("role", "group");
      const link = add(svg, "a", { tabindex: 0, role: "link" });
      const ring = add(link, "circle", { r: 26, class: "ring", visibility: "hidden" });
      const text = add(svg, "text", { "aria-hidden": "true" });
      return { element, svg, link, ring, text, number };
    });
    let pointed = null;

    const variable = () => data.variables[chosen.variable ? chosen.variable.value : 0];
    const view = () => data.views[chosen.view ? chosen.view.value : 0];

    function value(at) {
      const one = variable();
      if (one.number) return one.values[at];
      return one.classes[at] === "-" ? "n/a" : one.legend[one.classes[at]].label;
    }

    function named(at) {
      const one = variable();
      return data.recordings[at] + (one.name ? `, ${one.name}: ${value(at)}` : "");
    }

    function draw() {
      const one = variable();
      const entries = [{ code: "-", colour: data.missing, shape: 0 }].concat(
        one.legend.map((entry, code) => ({ code: String(code), colour: entry.colour, shape: entry.shape }))
      );
      panels.forEach(function (panel) {
        const map = view().panels[panel.number];
        const paths = entries.map(() => []);
        for (let at = 0; at < one.classes.length; at += 1) {
          const kind = one.classes[at] === "-" ? 0 : Number(one.classes[at]) + 1;
          paths[kind].push(`M${map.x[at]} ${map.y[at]}${data.shapes[entries[kind].shape]}`);
        }
        const dots = part("dots", panel.svg);
        dots.replaceChildren();
        entries.forEach(function (entry, kind) {
          if (paths[kind].length) add(dots, "path", { fill: entry.colour, d: paths[kind].join("") });
        });
        part("x", panel.element).textContent = `→ ${map.axes[0]}`;
        part("y", panel.element).textContent = `↑ ${map.axes[1]}`;
        part("share", panel.element).textContent = one.shares[`${map.key}_${view().method}`] || "";
        const colour = one.name ? `, coloured by ${one.name}` : "";
        const what = `${map.title}: ${view().label} of ${map.x.length} recordings${colour}`;
        panel.svg.setAttribute("aria-label", what);
        panel.link.setAttribute("aria-label", `${what}; arrow keys go from recording to recording`);
        panel.order = null;
      });
      part("note").textContent = view().note;
      legend(one);
      point(pointed);
    }

    function legend(one) {
      const list = part("legend");
      if (!list) return;
      list.replaceChildren(document.createElement("strong"));
      list.firstChild.textContent = one.name;
      list.classList.toggle("range", one.number);
      one.legend.forEach(function (entry) {
        const item = list.appendChild(document.createElement("span"));
        const symbol = add(item, "svg", { viewBox: "-20 -20 40 40", "aria-hidden": "true" });
        if (one.number) symbol.setAttribute("preserveAspectRatio", "none");
        const path = one.number ? data.bar : `M0 0${data.symbols[entry.shape]}`;
        add(symbol, "path", { fill: entry.colour, d: path });
        item.append(`${entry.label} (${entry.n})`);
      });
      const missing = one.classes.split("-").length - 1;
      if (missing) list.appendChild(document.createElement("span")).textContent = `not known (${missing})`;
    }

    function point(at) {
      pointed = at;
      part("pointed").textContent = at === null ? "" : named(at);
      panels.forEach(function (panel) {
        panel.ring.setAttribute("visibility", at === null ? "hidden" : "visible");
        panel.text.replaceChildren();
        if (at === null) return;
        const map = view().panels[panel.number];
        const [x, y] = [map.x[at], map.y[at]];
        panel.ring.setAttribute("cx", x);
        panel.ring.setAttribute("cy", y);
        const lines = [data.recordings[at]].concat(variable().name ? [`${variable().name}: ${value(at)}`] : []);
        const first = y < 160 ? y + 76 : y - 42 * lines.length;
        lines.forEach(function (line, row) {
          const place = { x: Math.min(Math.max(x, 20), 980), y: first + 42 * row };
          add(panel.text, "tspan", place).textContent = line;
        });
        panel.text.setAttribute("text-anchor", x < 333 ? "start" : x > 667 ? "end" : "middle");
        panel.link.setAttribute("aria-label", named(at));
        if (data.pages[at]) panel.link.setAttribute("href", `./${data.pages[at]}`);
        else panel.link.removeAttribute("href");
      });
    }

    function nearest(panel, event) {
      const frame = panel.svg.getBoundingClientRect();
      const scale = 1000 / frame.width;
      const x = (event.clientX - frame.left) * scale;
      const y = (event.clientY - frame.top) * scale;
      const map = view().panels[panel.number];
      let [best, least] = [null, REACH * REACH];
      for (let at = 0; at < map.x.length; at += 1) {
        const distance = (map.x[at] - x) ** 2 + (map.y[at] - y) ** 2;
        if (distance < least) [best, least] = [at, distance];
      }
      return best;
    }

    // from left to right
    function step(panel, by) {
      const { x } = view().panels[panel.number];
      if (!panel.order) panel.order = Array.from(x.keys()).sort((a, b) => x[a] - x[b] || a - b);
      const place = pointed === null ? -by : panel.order.indexOf(pointed);
      const next = pointed === null ? 0 : (place + by + x.length) % x.length;
      point(panel.order[next]);
    }

    panels.forEach(function (panel) {
      let touched = null;
      panel.svg.addEventListener("pointermove", (event) => point(nearest(panel, event)));
      panel.svg.addEventListener("pointerleave", function () {
        if (document.activeElement !== panel.link) point(null);
      });
      // a finger first names the dot; a second tap on it opens the page
      panel.svg.addEventListener("pointerdown", function (event) {
        const at = nearest(panel, event);
        touched = event.pointerType === "touch" && at !== pointed;
        point(at);
      });
      panel.link.addEventListener("click", (event) => touched && event.preventDefault());
      panel.link.addEventListener("focus", () => pointed === null && step(panel, 1));
      panel.link.addEventListener("blur", () => point(null));
      panel.link.addEventListener("keydown", function (event) {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        step(panel, by);
      });
    });

    // a recording that is pointed at in the table is shown in the maps
    ["focusin", "pointerover"].forEach((kind) =>
      document.addEventListener(kind, function (event) {
        const row = event.target.closest && event.target.closest("[data-dot]");
        if (!row) return;
        const at = data.recordings.indexOf(row.dataset.dot);
        point(at < 0 ? null : at);
      })
    );
    for (const name in chosen) if (chosen[name]) chosen[name].addEventListener("change", draw);
    box.querySelector(".controls").hidden = false;
    draw();
  }

  document.querySelectorAll("[data-scatter]").forEach(start);
})();
