// Transcribe audio. The browser decodes and resamples, so that the server gets WAV for every format.

import {request} from "./api.js";
import {listen} from "./live.js";
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

async function openMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({audio: true});
  } catch (error) {
    throw new Error(`The microphone is not available (${error.message}).`);
  }
}

// Record a stream; the returned function stops it and resolves to the recording.
function record(stream) {
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.start();
  return () => new Promise((resolve) => {
    recorder.onstop = () => resolve(new Blob(parts, {type: recorder.mimeType}));
    recorder.stop();
  });
}

// Let a button start and stop a recording. `onTurns` gets the turns while a person speaks (see live.js). `take` gets the
// recording, and its turns; null if they could not be transcribed while the person spoke.
export function startRecorder(button, take, onTurns) {
  let stop = null;

  async function start() {
    const stream = await openMicrophone();
    const stopRecording = record(stream);
    const live = await listen(stream, element("audio-model").value, onTurns).catch(() => null);
    return async () => {
      const turns = live ? await live.stop().catch(() => null) : null;
      const blob = await stopRecording();
      stream.getTracks().forEach((track) => track.stop());
      return [blob, turns];
    };
  }

  button.addEventListener("click", () => attempt(async () => {
    button.disabled = true;
    try {
      if (stop) {
        const finish = stop;
        stop = null;
        button.setAttribute("aria-pressed", "false");
        await take(...await finish());
      } else {
        stop = await start();
        button.setAttribute("aria-pressed", "true");
      }
    } finally {
      button.disabled = false;
    }
  }));
}

const joined = (turns) => turns.map((turn) => turn.text + turn.rest).map((text) => text.trim()).join(" ");

// Let a button append a transcription of the microphone to a text field.
export function startDictation(button, field) {
  let before = null;
  const write = (text) => {
    before ??= field.value;
    field.value = `${before} ${text}`.trim();
  };
  startRecorder(button, async (blob, turns) => {
    write(turns ? joined(turns) : (await transcribe(blob)).text);
    before = null;
    field.focus();
  }, (turns) => write(joined(turns)));
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function showRows(segments) {
  const rows = segments.map(({start, text, rest = ""}) => {
    const quiet = make("span", {className: "provisional"}, rest);
    return make("li", {}, make("time", {}, clock(start)), text.trim(), quiet);
  });
  element("audio-text").replaceChildren(...rows);
}

function show(segments, status) {
  showRows(segments);
  const text = segments.map((segment) => segment.text.trim()).join(" ");
  element("audio-status").textContent = text ? status : "No speech was found.";
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

function play(blob) {
  const player = element("audio-player");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
}

async function openRecording(blob) {
  const controller = new AbortController();
  const done = running(element("audio-stop"), [element("audio-record")], controller);
  play(blob);
  element("audio-text").replaceChildren();
  element("audio-status").textContent = "Transcribing ...";
  const result = await attempt(() => transcribe(blob, controller.signal));
  done();
  if (result) show(result.segments, `Duration ${clock(result.duration)}, language ${result.language}.`);
  else element("audio-status").textContent = "";
}

function takeRecording(blob, turns) {
  if (!turns) return openRecording(blob);
  play(blob);
  show(turns, "Transcribed while you spoke.");
}

function showTurns(turns) {
  element("audio-status").textContent = "Listening ...";
  showRows(turns);
}

export function startAudio() {
  startFileButton("audio-file", (files) => openRecording(files[0]));
  startDrop(element("panel-audio"), ["audio/", "video/"], (files) => openRecording(files[0]));
  startRecorder(element("audio-record"), takeRecording, showTurns);
  if (!navigator.mediaDevices) {
    for (const id of ["audio-record", "chat-dictate", "image-dictate"]) element(id).hidden = true;
  }
}
