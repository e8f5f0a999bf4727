// Follow a growing log, but only while the reader is at its end.

const NEAR = 48; // pixels from the end

export class Follower {
  #log;
  #button;
  #follows = true;
  #top = 0;

  constructor(log, button) {
    this.#log = log;
    this.#button = button;
    log.addEventListener("scroll", () => {
      this.#look();
      this.#show();
    });
    button.addEventListener("click", () => {
      this.jump();
      log.focus();
    });
  }

  #distance() {
    return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight;
  }

  #show() {
    this.#button.hidden = this.#distance() < NEAR;
  }

  // The log may have grown since the last jump, so only a position above it means that the reader has scrolled.
  #look() {
    if (this.#log.scrollTop < this.#top - 1 && this.#distance() >= 1) this.#follows = false;
    else if (this.#distance() < NEAR) this.#follows = true;
  }

  // The text has grown.
  follow() {
    this.#look();
    if (this.#follows) this.jump();
    else this.#show();
  }

  // Go to the end and follow from now on.
  jump() {
    this.#follows = true;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#top = this.#log.scrollTop;
    this.#show();
  }
}
