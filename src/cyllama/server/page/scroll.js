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
      this.#follows = this.#distance() < NEAR;
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

  // The text has grown.
  follow() {
    if (this.#log.scrollTop < this.#top - 1 && this.#distance() >= 1) this.#follows = false; // scrolled up just now
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
