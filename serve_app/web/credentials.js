/**
 * How the page proves who it is. Each kind gives `headers()` for requests, `query()` for the WebSocket's address, and
 * `renew()`, which says whether it was worth it to try again after a 401 or a close with 4401. `end()` forgets, and says
 * whether the server has, too.
 */

import { contentOf, request } from "./http.js";
import { recall, remember } from "./storage.js";

const EARLY_MS = 30_000;
const SESSION = "session";

/** In development one is who one says: an identity's names and values go as headers, and as a WebSocket's query. */
export class DevelopmentCredentials {
  #named;

  constructor(identity) {
    this.#named = {
      "X-Dev-User": identity.user,
      "X-Dev-Tenant": identity.tenant,
      "X-Dev-Roles": identity.roles.join(","),
    };
  }

  async headers() {
    return this.#named;
  }

  async query() {
    return this.#named;
  }

  async renew() {
    return false;
  }

  async end() {
    return true;
  }
}

/**
 * An access token, kept in this page's memory only. With an account here, `refresh` fetches the next one by a cookie that no
 * script can read; a token of somebody else's making runs out.
 */
export class TokenCredentials {
  #token;
  #endsAt;
  #refresh;
  #renewing = null;

  constructor({ access_token: token, expires_in_s: endsInS }, refresh = null) {
    this.#take(token, endsInS);
    this.#refresh = refresh;
  }

  async headers() {
    if (this.#refresh && Date.now() > this.#endsAt - EARLY_MS) {
      await this.renew().catch((problem) => {
        if (Date.now() >= this.#endsAt) throw problem;
      });
    }
    return { authorization: `Bearer ${this.#token}` };
  }

  /** A WebSocket cannot send a header: it gets a ticket that works once. */
  async query() {
    const { ticket } = await post("/api/auth/ws-ticket", undefined, await this.headers());
    return { ticket };
  }

  renew() {
    if (!this.#refresh) return Promise.resolve(false);
    this.#renewing ??= this.#renew().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  async #renew() {
    try {
      const { access_token: token, expires_in_s: endsInS } = await this.#refresh();
      // The cookie is all tabs': in another one, somebody else may have signed in meanwhile.
      if (ownerOf(token) !== ownerOf(this.#token)) return false;
      this.#take(token, endsInS);
      return true;
    } catch (problem) {
      if (problem.status === 401 || problem.status === 403) return false;
      throw problem;
    }
  }

  async end() {
    if (!this.#refresh) return true;
    remember(SESSION, null);
    return post("/api/auth/logout").then(
      () => true,
      () => false,
    );
  }

  #take(token, endsInS) {
    this.#token = token;
    this.#endsAt = Date.now() + (endsInS ?? Infinity) * 1000;
  }
}

/** Which kind the server wants: "development", "accounts", "jwt" or "entra". Raises a Problem. */
export async function signInMode() {
  return (await contentOf(await request("GET", "/api/auth"))).mode;
}

/** Logs in with an account of this server. Raises a Problem: 401 for what is wrong, 403 for a password that has expired. */
export async function logIn(login, password) {
  return account(await post("/api/auth/login", { login, password }));
}

/** Changes the password and logs in with the new one. */
export async function changePassword(login, password, newPassword) {
  return account(await post("/api/auth/password", { login, password, new_password: newPassword }));
}

/** Sets the password by a one-time token of an administrator's, and logs in with it. */
export async function resetPassword(login, token, newPassword) {
  await post("/api/auth/reset", { token, new_password: newPassword });
  return logIn(login, newPassword);
}

/** The session this browser still has, or null. */
export async function resume() {
  if (sessionEnded()) return null;
  try {
    return account(await post("/api/auth/refresh"));
  } catch (problem) {
    if (problem.status !== 401 && problem.status !== 403) throw problem;
    remember(SESSION, null);
    return null;
  }
}

/** Whether this browser's session was ended, by this tab or another. */
export function sessionEnded() {
  return recall(SESSION) !== true;
}

/** Whom a token of this server's accounts is for. */
function ownerOf(token) {
  const bytes = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
  const { tenant_id: tenant, sub } = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0))));
  return JSON.stringify([tenant, sub]);
}

function account(tokens) {
  remember(SESSION, true);
  return new TokenCredentials(tokens, () => post("/api/auth/refresh"));
}

async function post(path, body, headers) {
  return contentOf(await request("POST", path, { body, headers }));
}
