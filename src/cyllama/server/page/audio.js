// Transcribe files and the microphone.

import {attempt, clock, copy, download, element, fileKind, make, notice, openTab, running, startFileButton} from "./page.js";
import {refresh} from "./models.js";
import {startRecorder, transcribe} from "./recorder.js";
import {readSetting, writeSetting} from "./store.js";
import {showTranscript, startTranscript, subtitles, transcriptText} from "./transcript.js";

// The languages of Whisper.
const LANGUAGES = ("af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is " +
  "it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq " +
  "sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh").split(" ");

let name = "transcript";

function show(segments, words, status) {
  showTranscript(segments, words);
  const text = transcriptText();
  element("audio-status").textContent = text ? status : "No speech was found.";
  for (const [panel, field] of [["chat", "chat-text"], ["image", "image-text"]]) {
    const button = element(`audio-to-${panel}`);
    button.hidden = !text || element(`tab-${panel}`).disabled;
    button.onclick = () => {
      element(field).value = text;
      openTab(panel);
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
  name = blob.name?.replace(/\.\w+$/, "") || "recording";
  play(blob);
  showTranscript([]);
  element("audio-status").textContent = "Transcribing ...";
  element("audio-progress").hidden = false;
  const result = await attempt(() => transcribe(blob, controller.signal));
  element("audio-progress").hidden = true;
  refresh();
  done();
  if (result) show(result.segments, result.words, `Duration ${clock(result.duration)}, language ${result.language}.`);
  else element("audio-status").textContent = controller.signal.aborted ? "Stopped." : "";
}

function takeRecording(blob, turns) {
  if (!turns) return openRecording(blob);
  name = "recording";
  play(blob);
  show(turns, [], "Transcribed while you spoke.");
}

function showTurns(turns) {
  element("audio-status").textContent = "Listening ...";
  showTranscript(turns);
}

export function takeAudioFiles(files) {
  const usable = files.filter((file) => ["audio", "video"].includes(fileKind(file)));
  if (usable.length) openRecording(usable[0]);
  const others = files.filter((file) => file !== usable[0]).map((file) => file.name);
  if (!usable.length) notice(`${others.join(", ")}: expected an audio or video file.`);
  else if (others.length) notice(`One file at a time: ${usable[0].name} is transcribed, not ${others.join(", ")}.`);
}

function startLanguages() {
  const names = new Intl.DisplayNames(["en"], {type: "language"});
  const options = LANGUAGES.map((code) => [code, code === "jw" ? "Javanese" : names.of(code)]).sort((a, b) => a[1].localeCompare(b[1]));
  element("audio-language").append(...options.map(([value, text]) => make("option", {value}, text)));
  element("audio-language").value = readSetting("language", "");
  element("audio-language").addEventListener("change", () => writeSetting("language", element("audio-language").value));
}

export function startAudio() {
  startLanguages();
  startTranscript();
  startFileButton("audio-file", takeAudioFiles);
  startRecorder(element("audio-record"), takeRecording, showTurns);
  element("audio-copy").addEventListener("click", () => copy(transcriptText(), element("audio-copy")));
  for (const format of ["srt", "vtt"]) {
    element(`audio-${format}`).addEventListener("click", () => download(`${name}.${format}`, subtitles(format), "text/plain"));
  }
  if (!navigator.mediaDevices) {
    for (const id of ["audio-record", "chat-dictate", "image-dictate"]) element(id).hidden = true;
  }
}
