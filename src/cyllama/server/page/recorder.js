// The microphone: recordings, and dictation into a text field.

import {request} from "./api.js";
import {listen} from "./live.js";
import {modelName} from "./models.js";
import {attempt, element} from "./page.js";
import {toWav} from "./wav.js";

// Transcribe a file. What the browser cannot decode, the server may.
export async function transcribe(blob, signal) {
  const form = new FormData();
  const wav = await toWav(blob).catch(() => null);
  form.append("file", wav ?? blob, wav ? "audio.wav" : blob.name ?? "audio");
  form.append("model", modelName("audio"));
  form.append("language", language());
  form.append("response_format", "verbose_json");
  form.append("timestamp_granularities[]", "segment");
  form.append("timestamp_granularities[]", "word");
  return (await request("/v1/audio/transcriptions", {form, signal})).json();
}

// The language code; empty: the model detects it.
export const language = () => element("audio-language").value;

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
    const live = await listen(stream, modelName("audio"), language(), onTurns).catch(() => null);
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
