/** The sidebar as a drawer, where the window is too narrow to have it beside the conversation. */

const NARROW = matchMedia("(max-width: 50rem)");

export class Drawer {
  #panel;
  #main;
  #backdrop;
  #button;

  constructor({ panel, main, backdrop, open, close }) {
    this.#panel = panel;
    this.#main = main;
    this.#backdrop = backdrop;
    this.#button = open;
    open.addEventListener("click", () => this.open());
    close.addEventListener("click", () => this.close());
    backdrop.addEventListener("click", () => this.close());
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.isOpen) return;
      event.stopPropagation();
      this.close();
    });
    NARROW.addEventListener("change", () => this.#show(false));
    this.#show(false);
  }

  get isOpen() {
    return this.#panel.classList.contains("open");
  }

  open() {
    this.#show(true);
    this.#panel.querySelector("button, a")?.focus();
  }

  close() {
    if (!this.isOpen) return;
    this.#show(false);
    this.#button.focus();
  }

  #show(open) {
    this.#panel.classList.toggle("open", open);
    // What is out of sight is out of reach.
    this.#panel.inert = NARROW.matches && !open;
    this.#main.inert = NARROW.matches && open;
    this.#backdrop.hidden = !open;
    this.#button.setAttribute("aria-expanded", String(open));
  }
}
