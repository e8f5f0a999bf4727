// Requests to this server; the page sends requests to no other host.

let key = sessionStorage.getItem("key") ?? "";

export function setKey(value) {
  key = value;
  sessionStorage.setItem("key", value);
}

export class ServerError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// `json` is a value or, for numbers that JavaScript cannot represent, its text.
export async function request(path, {json, form, signal} = {}) {
  const headers = key ? {Authorization: `Bearer ${key}`} : {};
  let body = form;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = typeof json === "string" ? json : JSON.stringify(json);
  }
  const response = await fetch(path, {method: body === undefined ? "GET" : "POST", headers, body, signal});
  if (!response.ok) throw new ServerError(response.status, await errorMessage(response));
  return response;
}

// Open a WebSocket. A page can send the key only as a subprotocol, whose name may not have all characters.
export function openSocket(path) {
  const encoded = encodeURIComponent(key).replace(/[()]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  const protocols = key ? ["realtime", `openai-insecure-api-key.${encoded}`] : ["realtime"];
  return new WebSocket(location.origin.replace(/^http/, "ws") + path, protocols);
}

async function errorMessage(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || `The server responded with status ${response.status}.`;
  }
}

// Yield the JSON objects of a stream of server-sent events.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.code ?? 500, event.error.message);
      yield event;
    }
  }
}
