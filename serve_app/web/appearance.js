/** Light, dark, or as the system has it. */

import { say } from "./announce.js";
import { icon } from "./dom.js";
import { recall, remember } from "./storage.js";

const THEMES = {
  system: { icon: "screen", label: "Theme: as the system" },
  light: { icon: "sun", label: "Theme: light" },
  dark: { icon: "moon", label: "Theme: dark" },
};
const ORDER = Object.keys(THEMES);

/** Makes `button` go through the themes. */
export function themeButton(button) {
  let theme = THEMES[recall("theme")] ? recall("theme") : "system";
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.replaceChildren(icon(THEMES[theme].icon));
    button.setAttribute("aria-label", `${THEMES[theme].label}. Change`);
    button.title = THEMES[theme].label;
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    remember("theme", theme === "system" ? null : theme);
    show();
    say(THEMES[theme].label);
  });
  show();
}
