(function () {
  "use strict";
  var root = document.documentElement;
  var theme = document.getElementById("theme");
  var dark = function () {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  var name = function () {
    theme.textContent = dark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", "Show the page in " + (dark() ? "light" : "dark") + " colours");
  };
  theme.hidden = false;
  theme.addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  name();

  var copy = document.getElementById("copy");
  var command = document.getElementById("command");
  if (copy && command) {
    copy.hidden = false;
    copy.addEventListener("click", function () {
      var selection = getSelection();
      selection.selectAllChildren(command);
      var done = function () {
        copy.textContent = "Copied";
        setTimeout(function () { copy.textContent = "Copy"; }, 2000);
      };
      if (navigator.clipboard) {
        navigator.clipboard.writeText(command.textContent).then(done, function () {});
      } else if (document.execCommand("copy")) {
        done();
      }
    });
  }
})();
