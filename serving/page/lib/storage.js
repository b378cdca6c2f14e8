// The browser's storage, or memory alone where the browser refuses it.

function usable(name) {
  try {
    const storage = window[name];
    storage.setItem("intaglio.test", "");
    storage.removeItem("intaglio.test");
    return storage;
  } catch {
    return new Memory();
  }
}

class Memory {
  constructor() {
    this.values = new Map();
  }

  keys() {
    return [...this.values.keys()];
  }

  getItem(key) {
    return this.values.get(key) ?? null;
  }

  setItem(key, value) {
    this.values.set(key, String(value));
  }

  removeItem(key) {
    this.values.delete(key);
  }
}

/** What stays when the tab is closed. */
export const kept = usable("localStorage");
/** What is forgotten then. */
export const forgotten = usable("sessionStorage");

/** Return the names of what a storage holds. */
export function keysOf(storage) {
  return storage instanceof Memory ? storage.keys() : Object.keys(storage);
}
