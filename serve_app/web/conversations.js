/** The list of conversations: newest activity first, by day, paged; each can be renamed, archived and deleted. */

import { say, toast } from "./announce.js";
import { confirmed } from "./confirm.js";
import { h, icon, iconButton } from "./dom.js";
import { openMenu } from "./menu.js";

const UNTITLED = "Untitled conversation";
const TITLE_CHARS = 200;
const DAY_MS = 86_400_000;

export class Conversations {
  #api;
  #list;
  #hooks;
  #items = [];
  #cursor = null;
  #archived = false;
  #current = null;
  #reading = 0;

  /** Hooks: gone(id) when a conversation is not to be shown any more, changed() when titles may have. */
  constructor(api, list, hooks) {
    this.#api = api;
    this.#list = list;
    this.#hooks = hooks;
  }

  get archived() {
    return this.#archived;
  }

  /** Reads the list anew. */
  async load(archived = this.#archived) {
    const reading = ++this.#reading;
    this.#archived = archived;
    try {
      const page = await this.#api.conversations({ archived });
      if (reading !== this.#reading) return;
      const local = new Map(this.#items.map((item) => [item.id, item]));
      // A title made up here stays until the server has one.
      this.#items = page.items.map((item) => ({ ...item, draftTitle: local.get(item.id)?.draftTitle }));
      this.#cursor = page.next_cursor;
      this.#show();
    } catch (problem) {
      if (reading === this.#reading) this.#showProblem(problem);
    }
  }

  clear() {
    this.#reading += 1;
    this.#items = [];
    this.#list.replaceChildren();
  }

  titleOf(id) {
    const item = this.#items.find((one) => one.id === id);
    return item ? item.title ?? item.draftTitle ?? UNTITLED : null;
  }

  setCurrent(id) {
    this.#current = id;
    for (const link of this.#list.querySelectorAll("a[data-id]")) {
      if (link.dataset.id === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** A conversation that was just made with its first question. */
  add(id, question) {
    if (this.#archived || this.#items.some((item) => item.id === id)) return;
    const draftTitle = question.replace(/\s+/g, " ").slice(0, 60);
    this.#items.unshift({ id, title: null, draftTitle, updated_at: new Date().toISOString() });
    this.#show();
  }

  setTitle(id, title) {
    const item = this.#items.find((one) => one.id === id);
    if (!item) return;
    item.title = title;
    this.#show();
  }

  /** The conversation has had activity: it moves to the top. */
  touch(id) {
    const at = this.#items.findIndex((item) => item.id === id);
    if (at === -1) return;
    const [item] = this.#items.splice(at, 1);
    item.updated_at = new Date().toISOString();
    this.#items.unshift(item);
    this.#show();
  }

  /** The menu of a conversation, at `anchor`. */
  openMenu(id, anchor) {
    const { archived } = this.#items.find((one) => one.id === id) ?? {};
    openMenu(anchor, [
      { label: "Rename", icon: "pencil", act: () => this.#rename(id) },
      archived
        ? { label: "Restore", icon: "restore", act: () => this.#archive(id, false) }
        : { label: "Archive", icon: "archive", act: () => this.#archive(id, true) },
      { label: "Delete", icon: "trash", danger: true, act: () => this.#delete(id) },
    ]);
  }

  #show() {
    // Rebuilding must not take the focus away from whoever is going through the list, nor a name being typed.
    if (this.#list.querySelector("input")) return;
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const focus = focused && { id: focused.dataset.id, action: focused.dataset.testid };
    const nodes = [];
    let group = null;
    for (const item of this.#items) {
      const label = dayOf(item.updated_at);
      if (label !== group?.label) {
        group = { label, list: h("ul", {}) };
        nodes.push(h("section", { class: "day" }, h("h3", {}, label), group.list));
      }
      group.list.append(this.#row(item));
    }
    if (nodes.length === 0) {
      const sentence = this.#archived ? "Nothing is archived." : "Your conversations will be here.";
      nodes.push(h("p", { class: "list-empty" }, sentence));
    }
    if (this.#cursor !== null) nodes.push(this.#moreButton());
    this.#list.replaceChildren(...nodes);
    this.setCurrent(this.#current);
    this.#hooks.changed();
    if (focus?.id) this.#list.querySelector(`[data-id="${CSS.escape(focus.id)}"][data-testid="${focus.action}"]`)?.focus();
  }

  #row(item) {
    const title = item.title ?? item.draftTitle ?? UNTITLED;
    const link = h(
      "a",
      {
        href: `#/c/${encodeURIComponent(item.id)}`,
        "data-id": item.id,
        "data-testid": "conversation",
        class: item.title === null ? "untitled" : null,
        title,
        dir: "auto",
      },
      title,
    );
    const button = iconButton("dots", `Actions for ${title}`, {
      "aria-haspopup": "menu",
      "aria-expanded": "false",
      "data-id": item.id,
      "data-testid": "conversation-menu",
    });
    button.addEventListener("click", () => this.openMenu(item.id, button));
    return h("li", { class: "conversation" }, link, button);
  }

  #moreButton() {
    const button = h("button", { type: "button", class: "quiet-button more", "data-testid": "more" }, "Show more");
    button.addEventListener("click", async () => {
      button.disabled = true;
      const reading = this.#reading;
      try {
        const page = await this.#api.conversations({ archived: this.#archived, cursor: this.#cursor });
        if (reading !== this.#reading) return;
        const known = new Set(this.#items.map((item) => item.id));
        this.#items.push(...page.items.filter((item) => !known.has(item.id)));
        this.#cursor = page.next_cursor;
        this.#show();
      } catch (problem) {
        button.disabled = false;
        toast(problem.message);
      }
    });
    return button;
  }

  #showProblem(problem) {
    const button = h("button", { type: "button", class: "quiet-button" }, "Try again");
    button.addEventListener("click", () => this.load());
    this.#list.replaceChildren(h("p", { class: "list-empty" }, problem.message), button);
  }

  #rename(id) {
    const link = this.#list.querySelector(`a[data-id="${CSS.escape(id)}"]`);
    const item = this.#items.find((one) => one.id === id);
    if (!link || !item) return;
    const before = item.title ?? item.draftTitle ?? "";
    const input = h("input", {
      class: "rename",
      type: "text",
      maxlength: String(TITLE_CHARS),
      "aria-label": "New title",
      "data-testid": "rename-input",
    });
    input.value = before;
    let over = false;
    const finish = async (keep) => {
      if (over) return;
      over = true;
      const title = input.value.trim();
      input.remove();
      if (keep && title !== "" && title !== before) {
        item.title = title;
        try {
          await this.#api.rename(id, title);
          say("Renamed.");
        } catch (problem) {
          item.title = before;
          toast(`The title was not changed. ${problem.message}`);
        }
      }
      this.#show();
      this.#list.querySelector(`a[data-id="${CSS.escape(id)}"]`)?.focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      finish(event.key === "Enter");
    });
    input.addEventListener("blur", () => finish(true));
    link.replaceWith(input);
    input.focus();
    input.select();
  }

  async #archive(id, archived) {
    try {
      await this.#api.archive(id, archived);
      say(archived ? "Archived." : "Restored.");
      this.#drop(id);
    } catch (problem) {
      toast(problem.message);
    }
  }

  async #delete(id) {
    const agreed = await confirmed({
      title: "Delete this conversation?",
      sentence: `“${this.titleOf(id) ?? UNTITLED}” and all its messages will be gone for good.`,
      action: "Delete",
    });
    if (!agreed) return;
    try {
      await this.#api.remove(id);
    } catch (problem) {
      if (problem.code !== "not_found") {
        toast(`It was not deleted. ${problem.message}`);
        return;
      }
    }
    say("Deleted.");
    this.#drop(id);
  }

  #drop(id) {
    this.#items = this.#items.filter((item) => item.id !== id);
    this.#show();
    this.#hooks.gone(id);
  }
}

/** The mark beside the list that switches between archived conversations and the others. */
export function archiveToggle(button, conversations) {
  const show = () => {
    const { archived } = conversations;
    button.replaceChildren(icon(archived ? "chevron" : "archive"), archived ? "Back to conversations" : "Archived");
    button.classList.toggle("back", archived);
  };
  button.onclick = () => {
    conversations.load(!conversations.archived);
    show();
  };
  show();
}

function dayOf(time) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const age = midnight.getTime() - new Date(time).getTime();
  if (age <= 0) return "Today";
  if (age <= DAY_MS) return "Yesterday";
  if (age <= 7 * DAY_MS) return "Last 7 days";
  return age <= 30 * DAY_MS ? "Last 30 days" : "Earlier";
}
