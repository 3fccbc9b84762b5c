/** Signing in as a development user: a name, a tenant and roles, all taken at their word. */

import { byId, h } from "./dom.js";
import { ROLES, TENANT_PATTERN, USER_PATTERN } from "./identity.js";

/**
 * Shows the form; `done(identity)` gets what was entered. `current` fills it in; `message` says why one is asked again;
 * with `cancel` the form can be left.
 */
export function showSignIn({ current, message, done, cancel }) {
  const form = byId("signin-form");
  const user = byId("signin-user");
  const tenant = byId("signin-tenant");
  const back = byId("signin-cancel");
  const note = byId("signin-message");
  const known = current ?? { user: "", tenant: "default", roles: ["sales"] };
  user.pattern = USER_PATTERN;
  tenant.pattern = TENANT_PATTERN;
  user.value = known.user;
  tenant.value = known.tenant;
  const boxes = ROLES.map(({ id }) => {
    const box = h("input", { type: "checkbox", name: "role", value: id, id: `role-${id}`, "data-testid": `role-${id}` });
    box.checked = known.roles.includes(id);
    return box;
  });
  const labels = ROLES.map(({ label, hint }, index) =>
    h("label", { class: "role" }, boxes[index], h("span", {}, h("strong", {}, label), h("small", {}, hint))),
  );
  byId("signin-roles").replaceChildren(...labels);
  note.textContent = message ?? "";
  note.hidden = !message;
  back.hidden = !cancel;
  back.onclick = () => close() || cancel();
  form.onkeydown = (event) => {
    if (event.key === "Escape" && cancel) {
      event.stopPropagation();
      close();
      cancel();
    }
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const roles = boxes.filter((box) => box.checked).map((box) => box.value);
    close();
    done({ user: user.value.trim(), tenant: tenant.value.trim(), roles });
  };
  byId("app").hidden = true;
  byId("signin").hidden = false;
  user.focus();
  user.select();
}

function close() {
  byId("signin").hidden = true;
  byId("app").hidden = false;
}
