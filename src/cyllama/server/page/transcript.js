// A transcript: rows whose words seek in the audio, and its text in the formats of subtitles.

import {clock, element, make, makeButton} from "./page.js";

let segments = [];
let words = []; // buttons in the order of time, with `start`

export const transcriptText = () => segments.map(({text}) => text.trim()).join(" ");

// Show segments {start, end, text, rest}; `found` are the words {word, start, end} of all segments, if they are known.
export function showTranscript(shown, found = []) {
  segments = shown;
  words = [];
  let next = 0;
  const rows = segments.map((segment) => {
    const row = [];
    while (next < found.length && found[next].start < segment.end) row.push(makeWord(found[next++]));
    const text = row.length ? row : [segment.text.trim()];
    const time = makeButton(clock(segment.start), () => seek(segment.start), {className: "time", "aria-label": `Play from ${clock(segment.start)}`});
    const quiet = make("span", {className: "provisional"}, segment.rest ?? "");
    return make("li", {}, time, make("span", {className: "line"}, ...text.flatMap((part) => [part, " "]), quiet));
  });
  element("audio-text").replaceChildren(...rows);
  if (words.length) words[0].tabIndex = 0;
  for (const id of ["audio-copy", "audio-srt", "audio-vtt"]) element(id).hidden = !transcriptText();
}

function makeWord({word, start}) {
  const button = makeButton(word.trim(), () => seek(start), {className: "word", tabIndex: -1});
  button.start = start;
  words.push(button);
  return button;
}

function seek(seconds) {
  const player = element("audio-player");
  player.currentTime = seconds;
  player.play().catch(() => {}); // a browser may forbid it
}

// The arrow keys move between words; one word is in the order of Tab.
function move(event) {
  const i = words.indexOf(event.target), step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10}[event.key];
  if (i < 0 || !step) return;
  event.preventDefault();
  const next = words[Math.max(0, Math.min(words.length - 1, i + step))];
  words[i].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

let spoken = null;

function markSpoken() {
  const time = element("audio-player").currentTime;
  const word = words.findLast(({start}) => start <= time) ?? null;
  if (word === spoken) return;
  spoken?.removeAttribute("aria-current");
  word?.setAttribute("aria-current", "true");
  spoken = word;
}

function stamp(seconds, comma) {
  const milliseconds = Math.max(0, Math.round(seconds * 1000));
  const part = (value, size) => String(Math.floor(value)).padStart(size, "0");
  return `${part(milliseconds / 3_600_000, 2)}:${part(milliseconds / 60_000 % 60, 2)}:${part(milliseconds / 1000 % 60, 2)}${comma}${part(milliseconds % 1000, 3)}`;
}

export function subtitles(format) {
  const comma = format === "srt" ? "," : ".";
  const cues = segments.filter(({text}) => text.trim()).map(({start, end, text}, i) => {
    const number = format === "srt" ? `${i + 1}\n` : "";
    return `${number}${stamp(start, comma)} --> ${stamp(end, comma)}\n${text.trim().replaceAll("-->", "->")}\n`;
  });
  return (format === "vtt" ? "WEBVTT\n\n" : "") + cues.join("\n");
}

export function startTranscript() {
  element("audio-text").addEventListener("keydown", move);
  element("audio-player").addEventListener("timeupdate", markSpoken);
}
