// Requests to this server. Nothing else is ever asked.

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

export async function request(path, {json, form, signal} = {}) {
  const headers = key ? {Authorization: `Bearer ${key}`} : {};
  let body = form;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  }
  const answer = await fetch(path, {method: body === undefined ? "GET" : "POST", headers, body, signal});
  if (!answer.ok) throw new ServerError(answer.status, await reason(answer));
  return answer;
}

async function reason(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || `the server answered ${answer.status}`;
  }
}

// The JSON objects of a stream of server-sent events.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
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
      const found = JSON.parse(data);
      if (found.error) throw new ServerError(found.error.code ?? 500, found.error.message);
      yield found;
    }
  }
}
