// In a page that holds its pictures itself, a button opens the one above it in a tab of its own.
(function () {
  "use strict";
  document.querySelectorAll("figure button.opens").forEach(function (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      const shown = button.closest("figure").querySelector("img, object");
      const [head, content] = (shown.data || shown.src).split(";base64,");
      const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
      open(URL.createObjectURL(new Blob([bytes], { type: head.slice("data:".length) })));
    });
  });
})();
