// Recordings to text. The browser decodes and resamples, so that the server gets plain WAV of any source.

import {request} from "./api.js";
import {attempt, element, make, notice, openTab, running, startDrop, startFileButton} from "./page.js";

const RATE = 16000;

export async function toWav(blob) {
  const context = new AudioContext();
  let sound;
  try {
    sound = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error("This browser cannot decode that file.");
  } finally {
    context.close();
  }
  const offline = new OfflineAudioContext(1, Math.max(1, Math.ceil(sound.duration * RATE)), RATE);
  const source = offline.createBufferSource();
  source.buffer = sound;
  source.connect(offline.destination);
  source.start();
  return wavOf((await offline.startRendering()).getChannelData(0));
}

function wavOf(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, x)) * 0x7fff, true));
  return new Blob([view], {type: "audio/wav"});
}

export async function transcribe(blob, signal) {
  const form = new FormData();
  form.append("file", await toWav(blob), "sound.wav");
  form.append("model", element("sound-model").value);
  form.append("response_format", "verbose_json");
  return (await request("/v1/audio/transcriptions", {form, signal})).json();
}

// A button that records while it is pressed in, and then gives the recording.
export function startRecorder(button, take) {
  let recorder = null;
  button.addEventListener("click", () => attempt(async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    const stream = await navigator.mediaDevices.getUserMedia({audio: true}).catch((error) => {
      throw new Error(`There is no microphone to record with (${error.message}).`);
    });
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      button.setAttribute("aria-pressed", "false");
      const kind = recorder.mimeType;
      recorder = null;
      take(new Blob(parts, {type: kind}));
    };
    recorder.start();
    button.setAttribute("aria-pressed", "true");
  }));
}

// A button that lets one speak into a text field.
export function startDictation(button, field) {
  startRecorder(button, (blob) => attempt(async () => {
    button.disabled = true;
    try {
      const {text} = await transcribe(blob);
      field.value = `${field.value} ${text}`.trim();
      field.focus();
    } finally {
      button.disabled = false;
    }
  }));
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function show(result) {
  const rows = result.segments.map((segment) => make("li", {}, make("time", {}, clock(segment.start)), segment.text.trim()));
  element("sound-text").replaceChildren(...rows);
  const heard = result.text.trim();
  element("sound-state").textContent = heard ? `${clock(result.duration)} minutes of sound (${result.language}).` : "No speech was heard.";
  for (const [name, field] of [["chat", "chat-text"], ["picture", "picture-text"]]) {
    const button = element(`sound-to-${name}`);
    button.hidden = !heard;
    button.onclick = () => {
      element(field).value = heard;
      openTab(name);
      element(field).focus();
    };
  }
}

async function read(blob) {
  const controller = new AbortController();
  const done = running(element("sound-stop"), [element("sound-record")], controller);
  const player = element("sound-player");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  element("sound-text").replaceChildren();
  element("sound-state").textContent = "Listening ...";
  const result = await attempt(() => transcribe(blob, controller.signal));
  done();
  if (result) show(result);
  else element("sound-state").textContent = "";
}

export function startSound() {
  startFileButton("sound-file", (files) => read(files[0]));
  startDrop(element("panel-sound"), ["audio/", "video/"], (files) => read(files[0]));
  startRecorder(element("sound-record"), read);
  if (!navigator.mediaDevices) {
    for (const id of ["sound-record", "chat-speak", "picture-speak"]) element(id).hidden = true;
    notice("");
  }
}
