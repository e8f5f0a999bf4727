// Transcribe the microphone while a person speaks, over a WebSocket.

import {openSocket} from "./api.js";

const SILENCE = 800; // milliseconds that end a turn
const PROVISIONAL = "item.input_audio_transcription.provisional";

function encode(samples) {
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((x, i) => view.setInt16(2 * i, Math.max(-1, Math.min(1, x)) * 0x7fff, true));
  return btoa(String.fromCharCode(...new Uint8Array(view.buffer)));
}

// Transcribe a stream of the microphone. `onTurns` gets the turns when their text changes: {start, end, text, rest}, with the
// times in seconds, the final text, and the text that can change. The returned `stop` resolves to the final turns.
// Both reject if the server does not offer live transcription or the connection breaks.
export async function listen(stream, model, language, onTurns) {
  const context = new AudioContext();
  const turns = new Map();
  let socket;
  let ready = false;
  let waiting = []; // blocks until the session is ready
  const send = (event) => socket.send(JSON.stringify(event));
  let samples = 0; // sent
  const append = (block) => {
    samples += block.length;
    send({type: "input_audio_buffer.append", audio: encode(block)});
  };
  const started = Promise.withResolvers();
  const ended = Promise.withResolvers();
  ended.promise.catch(() => {}); // stop() reports it

  const close = () => {
    ready = false;
    waiting = [];
    socket?.close();
    if (context.state !== "closed") context.close();
  };
  const fail = (text) => {
    close();
    started.reject(new Error(text));
    ended.reject(new Error(text));
  };
  const handlers = {
    "session.created": () => send({
      type: "session.update",
      session: {
        type: "transcription",
        include: [PROVISIONAL],
        audio: {input: {
          format: {type: "audio/pcm", rate: context.sampleRate},
          transcription: {model, delay: "low", ...language && {language}},
          turn_detection: {type: "server_vad", silence_duration_ms: SILENCE},
        }},
      },
    }),
    "session.updated": () => {
      waiting.forEach(append);
      waiting = [];
      ready = true;
      started.resolve();
    },
    "input_audio_buffer.speech_started": (event) => {
      const start = event.audio_start_ms / 1000;
      turns.set(event.item_id, {start, end: start, text: "", rest: ""});
    },
    "input_audio_buffer.speech_stopped": (event) => {
      turns.get(event.item_id).end = event.audio_end_ms / 1000;
    },
    "conversation.item.input_audio_transcription.delta": (event) => {
      const turn = turns.get(event.item_id);
      turn.text += event.delta;
      turn.rest = event.provisional ?? turn.rest;
      onTurns([...turns.values()]);
    },
    "conversation.item.input_audio_transcription.completed": (event) => {
      Object.assign(turns.get(event.item_id), {text: event.transcript, rest: ""});
      onTurns([...turns.values()]);
    },
    "conversation.item.input_audio_transcription.failed": (event) => fail(event.error.message),
    "input_audio_buffer.cleared": () => {
      close();
      const final = [...turns.values()].filter((turn) => turn.text);
      for (const turn of final) if (turn.end <= turn.start) turn.end = samples / context.sampleRate;
      ended.resolve(final);
    },
    error: (event) => {
      if (event.error.code !== "input_audio_buffer_commit_empty") fail(event.error.message);
    },
  };

  try {
    await context.audioWorklet.addModule("microphone.js");
    const microphone = new AudioWorkletNode(context, "microphone");
    microphone.port.onmessage = ({data}) => (ready ? append(data) : waiting.push(data));
    context.createMediaStreamSource(stream).connect(microphone).connect(context.destination);
    socket = openSocket("/v1/realtime");
  } catch (error) {
    close();
    throw error;
  }
  socket.onmessage = ({data}) => {
    const event = JSON.parse(data);
    handlers[event.type]?.(event);
  };
  socket.onclose = ({reason}) => fail(reason || "The connection for live transcription has ended.");
  await started.promise;
  return {
    // The server handles events one after the other: when it has cleared the buffer, all texts have arrived.
    stop() {
      if (ready) {
        ready = false;
        send({type: "input_audio_buffer.commit"});
        send({type: "input_audio_buffer.clear"});
      }
      return ended.promise;
    },
  };
}
