// Runs in the audio thread: send the microphone's samples to the page in blocks.

const BLOCK = 4096; // samples

class Microphone extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #length = 0;

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.#block[this.#length] = sample;
      this.#length += 1;
      if (this.#length === BLOCK) {
        this.port.postMessage(this.#block.slice());
        this.#length = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
