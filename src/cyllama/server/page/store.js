// What the browser keeps: conversations and images in IndexedDB, settings in localStorage. Nothing is sent anywhere.

const NAME = "cyllama";
const STORES = ["chats", "messages", "images"];

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => STORES.forEach((name) => opening.result.createObjectStore(name, {keyPath: "id"}));
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(storeError(opening.error));
  });
  return opened;
}

function storeError(error) {
  const reason = error?.name === "QuotaExceededError" ? "its storage is full; delete conversations or images" : error?.message;
  return new Error(`The browser could not keep the data: ${reason}.`);
}

// Run an action on a store; resolve to its result when the transaction has completed.
async function run(name, mode, action) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(name, mode);
    const asked = action(transaction.objectStore(name));
    transaction.oncomplete = () => resolve(asked?.result);
    transaction.onabort = transaction.onerror = () => reject(storeError(transaction.error));
  });
}

export const getAll = (name) => run(name, "readonly", (store) => store.getAll());
export const get = (name, id) => run(name, "readonly", (store) => store.get(id));
export const put = (name, value) => run(name, "readwrite", (store) => store.put(value));
export const remove = (name, id) => run(name, "readwrite", (store) => store.delete(id));

// Call a function with each value, one at a time in memory.
export const each = (name, visit) => run(name, "readonly", (store) => {
  const asked = store.openCursor();
  asked.onsuccess = () => {
    const cursor = asked.result;
    if (!cursor) return;
    visit(cursor.value);
    cursor.continue();
  };
});

// A random name; crypto.randomUUID exists only on https and localhost.
export const randomId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function readSetting(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`cyllama-${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function writeSetting(name, value) {
  try {
    localStorage.setItem(`cyllama-${name}`, JSON.stringify(value));
  } catch {
    // a full or forbidden storage: the setting holds until the page is closed
  }
}
