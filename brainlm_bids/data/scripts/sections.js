// Marks the section that is being read in the navigation: its link has aria-current="true", and the
// session around it is unfolded. Parts of other recordings are folded away, where there are many.
(function () {
  "use strict";
  const nav = document.querySelector("nav");
  const links = new Map();
  document.querySelectorAll("nav a[href^='#']").forEach(function (link) {
    const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (section) links.set(section, link);
  });
  if (!links.size) return;
  if (nav.querySelectorAll(".run").length > 2) nav.dataset.follow = "true";
  const sections = Array.from(links.keys());
  let current = null;
  let run = null;
  let waiting = false;
  function mark() {
    waiting = false;
    const above = sections.filter((one) => one.getBoundingClientRect().top < innerHeight / 3);
    const link = links.get(above.length ? above[above.length - 1] : sections[0]);
    if (link === current) return;
    if (current) current.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    current = link;
    if (run) run.classList.remove("read");
    run = link.closest(".run");
    if (run) run.classList.add("read");
    const session = link.closest(".session");
    if (session) session.open = true;
    // only the navigation scrolls, and only where it is a column of its own
    const box = nav.getBoundingClientRect();
    const place = link.getBoundingClientRect();
    if (nav.scrollHeight > nav.clientHeight && (place.top < box.top || place.bottom > box.bottom)) {
      nav.scrollTop += place.top - box.top - box.height / 3;
    }
  }
  addEventListener("scroll", function () {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, { passive: true });
  mark();
})();
