/** Keeps the beginning and the end of a text in bounded memory; a note replaces the middle. */
export class KeptText {
  readonly #headMax: number;
  readonly #tailMax: number;
  #head = "";
  #tail: string[] = [];
  #tailCharacters = 0;
  #omitted = 0;

  /** `charactersMax`: bound on the kept characters, half of them for the beginning. */
  constructor(charactersMax: number) {
    this.#headMax = Math.floor(charactersMax / 2);
    this.#tailMax = charactersMax - this.#headMax;
  }

  get isCut(): boolean {
    return this.#omitted > 0;
  }

  get isEmpty(): boolean {
    return this.#head === "" && this.#tailCharacters === 0;
  }

  add(text: string): void {
    const room = this.#headMax - this.#head.length;
    if (room > 0) this.#head += text.slice(0, room);
    const rest = room > 0 ? text.slice(room) : text;
    if (rest === "") return;
    const kept = rest.slice(-this.#tailMax);
    this.#omitted += rest.length - kept.length;
    this.#tail.push(kept);
    this.#tailCharacters += kept.length;
    while (this.#tailCharacters - (this.#tail[0]?.length ?? 0) >= this.#tailMax) {
      const gone = this.#tail.shift()?.length ?? 0;
      this.#tailCharacters -= gone;
      this.#omitted += gone;
    }
    // Joins many short pieces, so their count is bounded too.
    if (this.#tail.length > 4096) this.#tail = [this.#tail.join("")];
  }

  text(): string {
    const tail = this.#tail.join("");
    if (this.#omitted === 0) return (this.#head + tail).toWellFormed();
    return `${this.#head}\n… ${this.#omitted} characters left out …\n${tail}`.toWellFormed();
  }
}
