// A box whose content is wider or taller than itself can be reached and scrolled by keyboard, and a
// screen reader says what it holds: its caption, or else the heading above it.
(function () {
  "use strict";
  const boxes = Array.from(document.querySelectorAll(":is(.scroll, .plate, pre):not([role])"));
  if (!boxes.length) return;
  const headings = Array.from(document.querySelectorAll("h1, h2, h3, h4"));
  function label(box) {
    const figure = box.closest("figure[aria-label]");
    if (figure) return figure.getAttribute("aria-label");
    const caption = box.querySelector("caption");
    if (caption) return caption.textContent;
    const above = headings.filter(
      (one) => one.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING
    );
    return above.length ? above[above.length - 1].textContent : document.title;
  }
  function look() {
    const scrolled = boxes.map(
      (box) => box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1
    );
    boxes.forEach(function (box, at) {
      if (!scrolled[at]) {
        ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
        return;
      }
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", label(box).trim());
    });
  }
  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(function () {
      waiting = false;
      look();
    });
  }
  addEventListener("resize", later);
  addEventListener("load", look);
  // a figure has its size when it is there, also one that took the place of another
  document.addEventListener("load", later, true);
  // what is unfolded has a size only then
  document.addEventListener("toggle", later, true);
  look();
})();
