// Figures that react to a pointer do so once they are near the screen: a page with a hundred
// recordings loads none of those that nobody looks at.
(function () {
  "use strict";
  const plates = document.querySelectorAll(".plate[data-interactive]");
  if (!plates.length || !("IntersectionObserver" in window)) return;
  function enliven(picture) {
    const drawing = document.createElement("object");
    const size = ["width", "height"].map((name) => picture.getAttribute(name));
    if (size[0]) drawing.style.aspectRatio = size.join(" / ");
    drawing.type = "image/svg+xml";
    drawing.setAttribute("aria-label", picture.alt);
    drawing.data = picture.src;
    picture.replaceWith(drawing);
  }
  const near = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      const picture = entry.target.querySelector("img");
      if (!entry.isIntersecting || !picture) return;
      near.unobserve(entry.target);
      if (picture.complete) enliven(picture);
      else picture.addEventListener("load", () => enliven(picture), { once: true });
    });
  }, { rootMargin: "400px" });
  plates.forEach((plate) => near.observe(plate));
})();
