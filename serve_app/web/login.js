/** Signing in with an account of this server, or with an access token of one's organisation. */

import { changePassword, logIn, resetPassword, TokenCredentials } from "./credentials.js";
import { byId } from "./dom.js";

const LEADS = {
  accounts: "Sign in with your account.",
  jwt: "Paste an access token of your organisation.",
  entra: "Paste an access token of your organisation (Microsoft Entra ID).",
};

/** Shows the form for `mode`; `done(credentials)` gets what was signed in with. `message` says why one is asked again. */
export function showLogin({ mode, message, done }) {
  const form = byId("login-form");
  const [login, password, once, fresh, token] = ["name", "password", "once", "new", "token"].map((name) => byId(`login-${name}`));
  const secrets = [password, once, fresh, token];
  const other = byId("login-other");
  const withAccount = mode === "accounts";
  byId("login-lead").textContent = LEADS[mode] ?? LEADS.jwt;
  byId("login-account").hidden = !withAccount;
  byId("login-external").hidden = withAccount;
  login.required = withAccount;
  token.required = !withAccount;
  for (const input of secrets) input.value = "";
  ask("password");
  say(message);
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.ariaBusy === "true") return;
    form.ariaBusy = "true";
    try {
      const credentials = withAccount
        ? await signedIn(login.value.trim())
        : new TokenCredentials({ access_token: token.value.trim() });
      for (const input of secrets) input.value = "";
      byId("login").hidden = true;
      byId("app").hidden = false;
      done(credentials);
    } catch (problem) {
      say(problem.message);
      if (withAccount && !once.required && problem.status === 403) ask("change");
      (fresh.required ? fresh : password).focus();
    } finally {
      form.ariaBusy = "false";
    }
  };
  byId("app").hidden = true;
  byId("login").hidden = false;
  (withAccount ? login : token).focus();

  function signedIn(name) {
    if (once.required) return resetPassword(name, once.value.trim(), fresh.value);
    return fresh.required ? changePassword(name, password.value, fresh.value) : logIn(name, password.value);
  }

  /** For a "password", to "change" one that has expired, or for one "anew" by a one-time token. */
  function ask(what) {
    const anew = what === "anew";
    show("login-password-row", password, withAccount && !anew);
    show("login-once-row", once, anew);
    show("login-new-row", fresh, what !== "password");
    other.hidden = !withAccount;
    other.textContent = anew ? "I have a password" : "I have a one-time token";
    other.onclick = () => {
      ask(anew ? "password" : "anew");
      login.focus();
    };
  }
}

function show(row, input, yes) {
  byId(row).hidden = !yes;
  input.required = yes;
}

function say(message) {
  const note = byId("login-message");
  note.textContent = message ?? "";
  note.hidden = !message;
}
