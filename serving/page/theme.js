// The theme that was chosen, before anything is shown. Not a module: those run after the first picture.

(function () {
  "use strict";
  try {
    const theme = localStorage.getItem("intaglio.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // without storage, the system's theme
  }
})();
