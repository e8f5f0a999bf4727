// A streamed chat completion.

import {events, request} from "./api.js";

function addCalls(calls, deltas) {
  for (const delta of deltas) {
    const call = calls[delta.index ?? calls.length] ??= {id: "", type: "function", function: {name: "", arguments: ""}};
    call.id = delta.id ?? call.id;
    call.function.name += delta.function?.name ?? "";
    call.function.arguments += delta.function?.arguments ?? "";
  }
}

// Fill `message`, an assistant's, while the response arrives; call `onChange` after each change.
export async function complete(json, message, onChange, signal) {
  const began = performance.now();
  let first = null;
  const body = {...json, stream: true, stream_options: {include_usage: true}};
  for await (const chunk of events(await request("/v1/chat/completions", {json: body, signal}))) {
    const {delta = {}, finish_reason: reason} = chunk.choices?.[0] ?? {};
    if (delta.reasoning_content) message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
    if (delta.content) message.content += delta.content;
    if (delta.tool_calls) addCalls(message.tool_calls ??= [], delta.tool_calls);
    if (reason) message.finish = reason;
    if (delta.content || delta.reasoning_content || delta.tool_calls) first ??= performance.now();
    if (chunk.usage) {
      const seconds = (performance.now() - (first ?? began)) / 1000;
      const tokens = chunk.usage.completion_tokens;
      const rate = chunk.timings?.predicted_per_second ?? (seconds ? tokens / seconds : 0);
      message.usage = {tokens, prompt: chunk.usage.prompt_tokens, rate, seconds: (performance.now() - began) / 1000};
    }
    onChange();
  }
}

const SENT = ["role", "content", "tool_calls", "tool_call_id"];

// The messages as the server takes them: without reasoning, and without what the page keeps about them.
export function sentMessages(messages, system) {
  const sent = messages.map((message) => Object.fromEntries(SENT.filter((name) => name in message).map((name) => [name, message[name]])));
  return system ? [{role: "system", content: system}, ...sent] : sent;
}
