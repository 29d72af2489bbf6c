// On a narrow screen the navigation is folded until it is asked for; without a script it is open.
(function () {
  "use strict";
  const contents = document.querySelector("nav > details");
  if (!contents) return;
  const narrow = matchMedia("(max-width: 900px)");
  function fold() {
    contents.open = !narrow.matches;
  }
  narrow.addEventListener("change", fold);
  contents.addEventListener("click", function (event) {
    if (narrow.matches && event.target.closest("a")) contents.open = false;
  });
  fold();
})();
