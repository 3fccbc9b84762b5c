/** What a tool call is made of on the page: its name for people, and values with their titles. */

import { h } from "./dom.js";

const SHOWN_CHARS = 12_000;

/** A tool's name for people: "crm.find_account" is "find account" of "crm". */
export function toolLabel(name) {
  const dot = name.indexOf(".");
  const words = (text) => text.replaceAll("_", " ").trim();
  return dot > 0 ? { server: name.slice(0, dot), tool: words(name.slice(dot + 1)) } : { server: "", tool: words(name) };
}

/** A value with its title; what is long is shown in part. */
export function section(title, value) {
  const whole = typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "";
  const pre = h("pre", { tabindex: "0", role: "region", "aria-label": title, "data-testid": `tool-${title.toLowerCase().replaceAll(" ", "-")}` });
  const parts = [h("h4", {}, title), pre];
  if (whole.length > SHOWN_CHARS) {
    pre.textContent = `${whole.slice(0, SHOWN_CHARS)} …`;
    const button = h("button", { type: "button", class: "quiet-button" }, "Show all");
    button.addEventListener("click", () => {
      pre.textContent = whole;
      pre.focus();
      button.remove();
    });
    parts.push(button);
  } else {
    pre.textContent = whole === "" ? "nothing" : whole;
  }
  return h("section", {}, parts);
}
