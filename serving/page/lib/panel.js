// A panel beside the page where there is room, and a dialog over it where there is not.

const WIDE = matchMedia("(min-width: 60rem)");

export class Panel {
  /** `open`: whether it is open from the beginning where there is room. */
  constructor(dialog, button, { open = false } = {}) {
    this.dialog = dialog;
    this.button = button;
    button.addEventListener("click", () => (dialog.open ? this.close() : this.open(true)));
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog && !WIDE.matches) this.close();
    });
    dialog.addEventListener("close", () => this.tell());
    dialog.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || !WIDE.matches) return;
      event.preventDefault();
      this.close();
      button.focus();
    });
    WIDE.addEventListener("change", () => {
      if (!dialog.open) return;
      this.close();
      if (WIDE.matches) this.open(false);
    });
    if (open && WIDE.matches) this.open(false);
    this.tell();
  }

  open(focus) {
    if (WIDE.matches) {
      if (focus) this.dialog.show();
      else this.dialog.setAttribute("open", "");
    } else this.dialog.showModal();
    this.tell();
  }

  close() {
    if (this.dialog.open) this.dialog.close();
    this.tell();
  }

  /** Close it where it covers the page. */
  yield() {
    if (!WIDE.matches) this.close();
  }

  tell() {
    this.button.setAttribute("aria-expanded", String(this.dialog.open));
  }
}
