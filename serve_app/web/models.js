/** The choice of a model, where there is one. */

import { h } from "./dom.js";
import { recall, remember } from "./storage.js";

export class ModelPicker {
  #row;
  #select;
  #default = null;

  constructor(row, select) {
    this.#row = row;
    this.#select = select;
    select.addEventListener("change", () => remember("model", this.chosen));
  }

  /** From `/api/capabilities`. */
  offer({ models, default_model_id: defaultId }) {
    this.#default = defaultId;
    this.#row.hidden = models.length < 2;
    this.#select.replaceChildren(...models.map((model) => h("option", { value: model.id }, model.id)));
    const kept = recall("model");
    const wanted = models.some((model) => model.id === kept) ? kept : defaultId;
    if (wanted !== null) this.#select.value = wanted;
  }

  /** The model to ask for, or null for the server's choice. */
  get chosen() {
    if (this.#row.hidden || this.#select.value === "" || this.#select.value === this.#default) return null;
    return this.#select.value;
  }
}
