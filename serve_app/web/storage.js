/** What this browser remembers. A browser that forbids it forgets; nothing depends on it. */

export function recall(key, store = localStorageOrNull()) {
  try {
    return JSON.parse(store?.getItem(`parley.${key}`) ?? "null");
  } catch {
    return null;
  }
}

/** Keeps a value, or forgets it where it is null. */
export function remember(key, value, store = localStorageOrNull()) {
  try {
    if (value === null) store?.removeItem(`parley.${key}`);
    else store?.setItem(`parley.${key}`, JSON.stringify(value));
  } catch {
    // Full or forbidden: the page works without.
  }
}

/** For this tab only. */
export function tabStorage() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

function localStorageOrNull() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
