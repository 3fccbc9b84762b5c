/** Who is using the page. In development one says so oneself; it is no secret and proves nothing. */

import { recall, remember } from "./storage.js";

export const ROLES = [
  { id: "sales", label: "Sales", hint: "Customers and opportunities" },
  { id: "hr", label: "HR", hint: "Colleagues and leave" },
  { id: "management", label: "Management", hint: "What sales and HR see" },
  { id: "admin", label: "Admin", hint: "Everything" },
];

/** What the server accepts as names. */
export const USER_PATTERN = "[A-Za-z0-9_.@+\\-]{1,128}";
export const TENANT_PATTERN = "[A-Za-z0-9_\\-]{1,64}";
const KEY = "identity";

/** The identity used last, {user, tenant, roles}, or null. */
export function loadIdentity() {
  const kept = recall(KEY);
  const usable =
    kept !== null &&
    new RegExp(`^${USER_PATTERN}$`).test(kept.user) &&
    new RegExp(`^${TENANT_PATTERN}$`).test(kept.tenant) &&
    Array.isArray(kept.roles) &&
    kept.roles.every((role) => /^[a-z0-9_-]{1,32}$/.test(role));
  return usable ? { user: kept.user, tenant: kept.tenant, roles: kept.roles } : null;
}

export function saveIdentity(identity) {
  remember(KEY, identity);
}
