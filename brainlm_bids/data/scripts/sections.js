// Marks the section that is being read in the navigation: its link has aria-current="true".
(function () {
  "use strict";
  const links = new Map();
  document.querySelectorAll("nav a[href^='#']").forEach(function (link) {
    const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (section) links.set(section, link);
  });
  if (!links.size) return;
  const sections = Array.from(links.keys());
  let current = null;
  let waiting = false;
  function mark() {
    waiting = false;
    const above = sections.filter((one) => one.getBoundingClientRect().top < innerHeight / 3);
    const link = links.get(above.length ? above[above.length - 1] : sections[0]);
    if (link === current) return;
    if (current) current.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    current = link;
  }
  addEventListener("scroll", function () {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, { passive: true });
  mark();
})();
