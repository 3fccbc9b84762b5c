/** The page: who uses it, which conversation the address names, and how its parts are joined. */

import { toast } from "./announce.js";
import { Api } from "./api.js";
import { themeButton } from "./appearance.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { archiveToggle, Conversations } from "./conversations.js";
import { DevelopmentCredentials, resume, sessionEnded, signInMode } from "./credentials.js";
import { byId } from "./dom.js";
import { Drawer } from "./drawer.js";
import { loadIdentity, saveIdentity } from "./identity.js";
import { showLogin } from "./login.js";
import { ModelPicker } from "./models.js";
import { showSignIn } from "./signin.js";
import { ConnectionBanner, showNotice } from "./status.js";
import { recall, remember } from "./storage.js";
import { Thread } from "./thread.js";
import { emptyState, Toolbox } from "./toolbox.js";

const NEW_TITLE = "New conversation";
const STALE_MS = 30_000;
const AGAIN_MS = 3_000;
const LAST_USER = "last-user";
const NOT_ENDED = "The server could not be reached, so your session goes on there. Sign in and out again to end it.";

const thread = new Thread(byId("scroller"), byId("messages"), byId("jump"));
const toolbox = new Toolbox(byId("tools-button"), byId("tools-panel"));
const models = new ModelPicker(byId("model-row"), byId("model"));
const banner = new ConnectionBanner(byId("connection"), () => session?.chat.retryNow());
const drawer = new Drawer({
  panel: byId("sidebar"),
  main: byId("main"),
  backdrop: byId("backdrop"),
  open: byId("drawer-open"),
  close: byId("drawer-close"),
});
const composer = new Composer(
  { form: byId("composer"), input: byId("input"), send: byId("send"), stop: byId("stop"), count: byId("count") },
  { send: (text) => session?.chat.ask(text) ?? false, stop: () => session?.chat.cancel() },
);

/** All that belongs to one signed-in user: {identity, credentials, api, chat, conversations}; null while nobody is. */
let session = null;
/** How one signs in here; see `signInMode`. */
let mode = "development";
let listReadAt = 0;
let mayQueue = false;

function signIn(identity, credentials = new DevelopmentCredentials(identity)) {
  if (mode === "development") saveIdentity(identity);
  const api = new Api(credentials);
  const conversations = new Conversations(api, byId("conversations"), {
    gone: (id) => id === session.chat.conversationId && goTo(null),
    changed: showTitle,
  });
  const chat = new Chat({
    credentials,
    api,
    thread,
    composer,
    hooks: {
      session: (frame) => toolbox.offer(frame.tools),
      title: (id, title) => conversations.setTitle(id, title),
      created: (id, question) => {
        history.replaceState(null, "", addressOf(id));
        conversations.add(id, question);
        conversations.setCurrent(id);
        showTitle();
      },
      active: (id) => conversations.touch(id),
      connection: (state) => connectionChanged(state),
      empty: (ask) => emptyState(identity, toolbox, ask),
      goNew: () => goTo(null),
      modelId: () => models.chosen,
      queues: () => mayQueue,
    },
  });
  session = { identity, credentials, api, chat, conversations };
  showUser(identity);
  archiveToggle(byId("archived"), conversations);
  chat.start();
  readList();
  readCapabilities();
  route();
}

function signOut() {
  session?.chat.stop();
  session?.conversations.clear();
  session = null;
  thread.clear();
  showNotice(byId("notice"), null);
}

/** Asks who is there; `message` says why, `cancel` leads back. */
function askWho(message, cancel) {
  if (mode !== "development") {
    showLogin({ mode, message, done: enter });
    return;
  }
  showSignIn({
    current: loadIdentity(),
    message,
    cancel,
    done: (identity) => {
      const other = session === null || JSON.stringify(identity) !== JSON.stringify(session.identity);
      if (!other) return;
      const sameUser = session !== null && identity.user === session.identity.user && identity.tenant === session.identity.tenant;
      const first = session === null && loadIdentity() === null;
      signOut();
      // Another user's address would only say that there is no such conversation.
      if (!sameUser && !first) history.replaceState(null, "", addressOf(null));
      signIn(identity);
    },
  });
}

/** With credentials the server says who one is. */
async function enter(credentials) {
  try {
    const { user_id: user, tenant_id: tenant, roles } = await new Api(credentials).authz();
    const before = recall(LAST_USER);
    if (before !== null && before !== `${tenant}/${user}`) history.replaceState(null, "", addressOf(null));
    remember(LAST_USER, `${tenant}/${user}`);
    byId("app").hidden = false;
    signIn({ user, tenant, roles }, credentials);
  } catch (problem) {
    if (mode !== "accounts" || problem.status === 401 || problem.status === 403) {
      askWho(problem.message, null);
      return;
    }
    byId("app").hidden = true;
    toast(problem.message);
    setTimeout(() => enter(credentials), AGAIN_MS);
  }
}

async function readCapabilities() {
  const { api, chat } = session;
  try {
    const { models: catalog, tools, limits } = await api.capabilities();
    if (session?.api !== api) return;
    toolbox.describe(tools);
    models.offer(catalog);
    composer.setLimits(limits.query_chars, limits.ws_frame_bytes);
    mayQueue = limits.on_busy === "queue" || limits.on_busy === "interrupt";
    showNotice(byId("notice"), catalog.simulated ? catalog.notice ?? "The model is simulated." : null);
    chat.refreshEmpty();
  } catch (problem) {
    if (session?.api !== api) return;
    if (problem.status === 401 || problem.status === 403) refused(problem.message);
    else if (problem.code !== "offline") toast(problem.message);
  }
}

function readList() {
  listReadAt = Date.now();
  return session.conversations.load();
}

function connectionChanged(state) {
  banner.show(state);
  if (state.name === "stopped" && state.code) refused(state.message);
  // A handshake that is refused tells a page nothing; an ordinary request does.
  if (state.name === "waiting" && !state.acknowledged) readCapabilities();
  if (state.name === "open" && Date.now() - listReadAt > STALE_MS) readList();
}

function refused(message) {
  signOut();
  askWho(message, null);
}

function route() {
  const match = /^#\/c\/([A-Za-z0-9_-]{1,64})$/.exec(location.hash);
  const id = match ? match[1] : null;
  session.conversations.setCurrent(id);
  session.chat.open(id);
  showTitle();
  const wasOpen = drawer.isOpen;
  drawer.close();
  // On a touch screen the focus would bring up the keyboard.
  if (!wasOpen && !matchMedia("(pointer: coarse)").matches) composer.focus();
}

function goTo(id) {
  if (location.hash === addressOf(id) || (id === null && location.hash === "")) route();
  else location.hash = addressOf(id);
}

function addressOf(id) {
  return id === null ? "#/" : `#/c/${encodeURIComponent(id)}`;
}

async function showTitle() {
  if (!session) return;
  const { api, chat, conversations } = session;
  const id = chat.conversationId;
  let title = id === null ? NEW_TITLE : conversations.titleOf(id);
  if (title === null) {
    // Archived, or further down the list than has been read.
    title = (await api.conversation(id).catch(() => null))?.title ?? NEW_TITLE;
    if (session?.chat.conversationId !== id) return;
  }
  byId("title").textContent = title;
  byId("title-menu").hidden = id === null || conversations.titleOf(id) === null;
  document.title = id === null ? "Parley" : `${title} · Parley`;
}

function showUser(identity) {
  byId("user-initial").textContent = identity.user.slice(0, 1).toUpperCase();
  byId("user-name").textContent = identity.user;
  const where = identity.tenant === "default" ? [] : [identity.tenant];
  byId("user-roles").textContent = [...where, identity.roles.join(", ") || "no roles"].join(" · ");
}

themeButton(byId("theme"));
byId("new").addEventListener("click", () => {
  drawer.close();
  goTo(null);
});
byId("switch").addEventListener("click", async () => {
  drawer.close();
  if (mode !== "development") {
    const { credentials } = session;
    signOut();
    byId("app").hidden = true;
    // First the end: it would take with it what somebody else has signed in with meanwhile.
    const ended = await credentials.end();
    askWho(ended ? null : NOT_ENDED, null);
    return;
  }
  askWho(null, () => byId("switch").focus());
});
byId("title-menu").addEventListener("click", (event) => {
  session.conversations.openMenu(session.chat.conversationId, event.currentTarget);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  composer.focus();
});
// What one tab signs out of, or into, holds for all: they share the cookie.
addEventListener("storage", () => {
  if (mode !== "accounts" || !session) return;
  const { tenant, user } = session.identity;
  if (sessionEnded()) refused("You have signed out in another tab.");
  else if (recall(LAST_USER) !== `${tenant}/${user}`) refused("Somebody else has signed in in another tab.");
});
addEventListener("hashchange", () => session && route());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && session && Date.now() - listReadAt > STALE_MS) readList();
});
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || !session || byId("app").hidden) return;
  const elsewhere = document.querySelector("dialog[open], [popover]:popover-open") !== null;
  if (event.key === "Escape" && !elsewhere && session.chat.busy) {
    event.preventDefault();
    session.chat.cancel();
  } else if (event.key === "/" && !elsewhere && !event.target.closest("input, textarea, select")) {
    event.preventDefault();
    composer.focus();
  }
});

async function begin() {
  try {
    mode = await signInMode();
    if (mode !== "development") byId("switch").title = byId("switch").ariaLabel = "Sign out";
    const kept = mode === "accounts" ? await resume() : null;
    if (kept) {
      await enter(kept);
      return;
    }
  } catch (problem) {
    toast(problem.message);
    setTimeout(begin, AGAIN_MS);
    return;
  }
  const known = mode === "development" ? loadIdentity() : null;
  if (known) {
    byId("app").hidden = false;
    signIn(known);
  } else {
    askWho(null, null);
  }
}

begin();
