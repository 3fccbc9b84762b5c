/** The tools this user may use: a button that counts them, a panel that names them, and questions that suit them. */

import { h, icon } from "./dom.js";
import { placeAt } from "./menu.js";
import { toolLabel } from "./toolparts.js";

/** Questions by what a tool is called; the first that fits each tool is offered. */
const EXAMPLES = [
  [/list_opportunit/, "Which opportunities does Contoso have?"],
  [/leave_balance/, "How much leave does Maria Keller have?"],
  [/find_account/, "Who looks after the account Fabrikam?"],
  [/find_employee/, "Who works in the Engineering department?"],
  [/list_department/, "Which departments are there?"],
  [/weather/, "What will the weather be tomorrow?"],
  [/search/, "Search for what is new this week."],
];
const MAX_EXAMPLES = 4;

export class Toolbox {
  #button;
  #panel;
  #names = [];
  #descriptions = new Map();

  constructor(button, panel) {
    this.#button = button;
    this.#panel = panel;
    button.addEventListener("click", () => {
      panel.togglePopover();
      if (panel.matches(":popover-open")) placeAt(panel, button);
    });
    panel.addEventListener("toggle", (event) => {
      button.setAttribute("aria-expanded", String(event.newState === "open"));
    });
  }

  /** From `/api/capabilities`: names with descriptions. */
  describe(tools) {
    this.#descriptions = new Map(tools.map((tool) => [tool.name, tool.description]));
    this.offer(tools.map((tool) => tool.name));
  }

  /** The names that may be used now, as the session says. */
  offer(names) {
    this.#names = names;
    const [count, word] = [String(names.length || "No"), names.length === 1 ? "tool" : "tools"];
    this.#button.replaceChildren(icon("tools"), h("span", {}, count), h("span", { class: "wide-only" }, word));
    this.#button.setAttribute("aria-label", `${count} ${word} you may use`);
    this.#button.hidden = false;
    this.#panel.replaceChildren(...this.#contents());
  }

  get names() {
    return this.#names;
  }

  /** Questions that the offered tools can answer. */
  examples() {
    const found = EXAMPLES.filter(([name]) => this.#names.some((tool) => name.test(tool))).map(([, question]) => question);
    if (found.length === 0) {
      const servers = [...new Set(this.#names.map((name) => toolLabel(name).server).filter(Boolean))];
      found.push(...servers.map((server) => `What can I ask about ${server}?`), "What can you help me with?");
    }
    return found.slice(0, MAX_EXAMPLES);
  }

  #contents() {
    if (this.#names.length === 0) {
      return [h("h2", {}, "Tools"), h("p", {}, "None are offered to your roles, or their servers are down.")];
    }
    const servers = new Map();
    for (const name of this.#names) {
      const { server, tool } = toolLabel(name);
      if (!servers.has(server)) servers.set(server, []);
      servers.get(server).push([tool, this.#descriptions.get(name)]);
    }
    const groups = [...servers].map(([server, tools]) => {
      const rows = tools.map(([tool, text]) => h("li", { "data-testid": "tool" }, h("strong", {}, tool), text && h("p", {}, text)));
      return h("section", {}, server && h("h3", {}, server), h("ul", {}, rows));
    });
    return [h("h2", {}, "Tools you may use"), ...groups];
  }
}

/** The page before the first message. */
export function emptyState(identity, toolbox, ask) {
  const buttons = toolbox.examples().map((question) => {
    const button = h("button", { type: "button", class: "example", "data-testid": "example" }, question);
    button.addEventListener("click", () => ask(question));
    return button;
  });
  const sentence =
    toolbox.names.length > 0
      ? "Ask in your own words. What needs looking up is looked up with the tools your roles allow."
      : "Ask in your own words. Your roles have no tools at the moment.";
  return h(
    "div",
    { class: "empty", "data-testid": "empty" },
    h("h2", {}, `${greeting()}, ${identity.user.split("@")[0]}`),
    h("p", {}, sentence),
    h("div", { class: "examples" }, buttons),
  );
}

function greeting() {
  const hour = new Date().getHours();
  if (hour < 5) return "Good evening";
  if (hour < 12) return "Good morning";
  return hour < 18 ? "Good afternoon" : "Good evening";
}
