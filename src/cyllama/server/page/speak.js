// Read a text aloud with the browser's own voices. Voices that send the text to another host are not used.

import {attempt} from "./page.js";

const LONGEST = 220; // characters of an utterance; browsers stop long ones
const VOICE_MILLISECONDS = 1_500;

let speaking = null; // the button whose text is read

function stop() {
  speechSynthesis.cancel();
  speaking?.setAttribute("aria-pressed", "false");
  speaking = null;
}

// Browsers list their voices late.
async function localVoices() {
  const end = performance.now() + VOICE_MILLISECONDS;
  for (;;) {
    const voices = speechSynthesis.getVoices();
    if (voices.length || performance.now() > end) return voices.filter((voice) => voice.localService);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

function sentences(text) {
  const parts = text.match(/[^.!?。！？\n]+[.!?。！？\n]*/g) ?? [];
  return parts.flatMap((part) => part.match(new RegExp(`.{1,${LONGEST}}(?:\\s|$)|.{1,${LONGEST}}`, "gs")) ?? []);
}

export const canSpeak = () => "speechSynthesis" in window;

// Start reading, or stop if the same button started it.
export async function toggleSpeech(text, button) {
  const again = speaking === button;
  stop();
  if (again) return;
  await attempt(async () => {
    speaking = button;
    button.setAttribute("aria-pressed", "true");
    const voices = await localVoices();
    if (speaking !== button) return;
    if (!voices.length) {
      stop();
      throw new Error("This browser has no voices of its own.");
    }
    const language = navigator.language.slice(0, 2);
    const voice = voices.find((found) => found.lang.startsWith(language)) ?? voices[0];
    const parts = sentences(text);
    parts.forEach((part, i) => {
      const utterance = new SpeechSynthesisUtterance(part);
      utterance.voice = voice;
      utterance.lang = voice.lang;
      if (i === parts.length - 1) utterance.onend = () => speaking === button && stop();
      utterance.onerror = (event) => event.error !== "interrupted" && speaking === button && stop();
      speechSynthesis.speak(utterance);
    });
  });
}
