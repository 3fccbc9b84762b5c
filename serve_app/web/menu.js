/** A menu of actions at a button: opens below it, closes on Escape, on choosing and on a click elsewhere. */

import { h, icon } from "./dom.js";

const GAP_PX = 4;
const EDGE_PX = 8;

/** Opens a menu of `items` [{label, icon, act, danger}] at `anchor`. */
export function openMenu(anchor, items) {
  const menu = h("div", { class: "menu", role: "menu", popover: "auto", "data-testid": "menu" });
  const buttons = items.map((item) => {
    const attributes = { type: "button", role: "menuitem", class: item.danger ? "danger" : null, tabindex: "-1" };
    const button = h("button", { ...attributes, "data-testid": `menu-${item.icon}` }, icon(item.icon), item.label);
    button.addEventListener("click", () => {
      close();
      item.act();
    });
    return button;
  });
  const close = () => {
    if (menu.matches(":popover-open")) menu.hidePopover();
  };
  menu.append(...buttons);
  menu.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (step) buttons[(at + step + buttons.length) % buttons.length].focus();
    else if (event.key === "Home") buttons[0].focus();
    else if (event.key === "End") buttons.at(-1).focus();
    else if (event.key === "Tab") close();
    else return;
    event.preventDefault();
  });
  menu.addEventListener("toggle", (event) => {
    if (event.newState === "open") return;
    anchor.setAttribute("aria-expanded", "false");
    if (menu.contains(document.activeElement) || document.activeElement === document.body) anchor.focus();
    menu.remove();
  });
  document.body.append(menu);
  menu.showPopover();
  placeAt(menu, anchor);
  anchor.setAttribute("aria-expanded", "true");
  buttons[0].focus();
}

/** Puts an open popover below its button, or above where there is no room, within the window. */
export function placeAt(popover, anchor) {
  const button = anchor.getBoundingClientRect();
  const { width, height } = popover.getBoundingClientRect();
  const left = Math.max(EDGE_PX, Math.min(button.right - width, innerWidth - width - EDGE_PX));
  const below = button.bottom + GAP_PX;
  const top = below + height > innerHeight - EDGE_PX ? Math.max(EDGE_PX, button.top - GAP_PX - height) : below;
  popover.style.setProperty("left", `${left}px`);
  popover.style.setProperty("top", `${top}px`);
}
