// Transcribe audio. The browser decodes and resamples, so that the server gets WAV for every format.

import {request} from "./api.js";
import {attempt, element, make, openTab, running, startDrop, startFileButton} from "./page.js";

const RATE = 16000;

export async function toWav(blob) {
  const context = new AudioContext();
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error("This browser cannot decode the file.");
  } finally {
    context.close();
  }
  const offline = new OfflineAudioContext(1, Math.max(1, Math.ceil(audio.duration * RATE)), RATE);
  const source = offline.createBufferSource();
  source.buffer = audio;
  source.connect(offline.destination);
  source.start();
  return encodeWav((await offline.startRendering()).getChannelData(0));
}

function encodeWav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (offset, value) => [...value].forEach((c, i) => view.setUint8(offset + i, c.charCodeAt(0)));
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
  form.append("file", await toWav(blob), "audio.wav");
  form.append("model", element("audio-model").value);
  form.append("response_format", "verbose_json");
  return (await request("/v1/audio/transcriptions", {form, signal})).json();
}

// Let a button start and stop a recording, which `take` gets.
export function startRecorder(button, take) {
  let recorder = null;
  button.addEventListener("click", () => attempt(async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    const stream = await navigator.mediaDevices.getUserMedia({audio: true}).catch((error) => {
      throw new Error(`The microphone is not available (${error.message}).`);
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

// Let a button append a transcription of the microphone to a text field.
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
  element("audio-text").replaceChildren(...rows);
  const text = result.text.trim();
  element("audio-status").textContent = text ? `Duration ${clock(result.duration)}, language ${result.language}.` : "No speech was found.";
  for (const [name, field] of [["chat", "chat-text"], ["image", "image-text"]]) {
    const button = element(`audio-to-${name}`);
    button.hidden = !text;
    button.onclick = () => {
      element(field).value = text;
      openTab(name);
      element(field).focus();
    };
  }
}

async function openRecording(blob) {
  const controller = new AbortController();
  const done = running(element("audio-stop"), [element("audio-record")], controller);
  const player = element("audio-player");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  element("audio-text").replaceChildren();
  element("audio-status").textContent = "Transcribing ...";
  const result = await attempt(() => transcribe(blob, controller.signal));
  done();
  if (result) show(result);
  else element("audio-status").textContent = "";
}

export function startAudio() {
  startFileButton("audio-file", (files) => openRecording(files[0]));
  startDrop(element("panel-audio"), ["audio/", "video/"], (files) => openRecording(files[0]));
  startRecorder(element("audio-record"), openRecording);
  if (!navigator.mediaDevices) {
    for (const id of ["audio-record", "chat-dictate", "image-dictate"]) element(id).hidden = true;
  }
}
