/** Building elements. Text becomes text nodes: nothing here, or anywhere in the page, parses HTML. */

/**
 * An element with attributes and children. `on` holds listeners; a boolean attribute is present or absent; null and
 * undefined attributes and children are left out. There is no `style`: the page's policy refuses it.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`The page has no element ${id}.`);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  again: ["M20 5v5h-5", "M19.4 10A8 8 0 1 0 20 14"],
  archive: ["M4 8v11h16V8", "M3 4h18v4H3z", "M10 12h4"],
  arrowDown: ["M12 5v14", "M6 13l6 6 6-6"],
  arrowUp: ["M12 19V5", "M6 11l6-6 6 6"],
  bolt: ["M13 3L5 14h6l-1 7 8-11h-6z"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  chevron: ["M9 6l6 6-6 6"],
  clock: ["M12 3.500a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17z", "M12 7.500V12l3 2"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  copy: ["M9 9h11v11H9z", "M5 15H4V4h11v1"],
  dots: ["M5 12h.01", "M12 12h.01", "M19 12h.01"],
  menu: ["M4 7h16", "M4 12h16", "M4 17h16"],
  moon: ["M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"],
  pencil: ["M4 20l1-4L16 5l3 3L8 19z", "M14 7l3 3"],
  plus: ["M12 5v14", "M5 12h14"],
  restore: ["M4 5v5h5", "M4.6 10A8 8 0 1 1 4 14"],
  screen: ["M3 5h18v12H3z", "M9 21h6", "M12 17v4"],
  stop: ["M7 7h10v10H7z"],
  sun: [
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
    "M12 2v2M12 20v2M2 12h2M20 12h2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  ],
  swap: ["M4 8h14l-3-3", "M20 16H6l3 3"],
  thumbDown: ["M7 3v11", "M7 4h9.5a2 2 0 0 1 2 1.6l1 5A2 2 0 0 1 17.5 13H14l1 5a2 2 0 0 1-2 2.500L9 14H4V3h3"],
  thumbUp: ["M7 21V10", "M7 20h9.5a2 2 0 0 0 2-1.600l1-5A2 2 0 0 0 17.5 11H14l1-5a2 2 0 0 0-2-2.500L9 10H4v11h3"],
  tools: ["M14.5 6.500a4 4 0 0 1 5-3.900l-2.6 2.6 2 2 2.6-2.600a4 4 0 0 1-5.4 4.600L8 17.500a2.1 2.1 0 0 1-3-3l8.3-8.2"],
  trash: ["M4 7h16", "M9 7V4h6v3", "M6 7l1 13h10l1-13", "M10 11v5M14 11v5"],
  warning: ["M12 4L2.5 20h19z", "M12 10v4", "M12 17h.01"],
};

/** A drawing beside a label, or inside a button that has one; never alone, so it is hidden from assistive technology. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [attribute, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(attribute, value);
  }
  for (const data of PATHS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", data);
    svg.append(path);
  }
  return svg;
}

/** A button of an icon alone, with the label that says what it does. */
export function iconButton(name, label, attributes = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, ...attributes }, icon(name));
}
