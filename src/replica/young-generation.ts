import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";

/**
 * The young generation of the process of a replica: 8 MB in each half while the replica has little
 * to do, and up to the maximum of Node's start (`--max-semi-space-size`) while many runs and turns
 * end. What waits for a batch is alive for a tenth of a second: in a small young generation it
 * becomes old within this time, and each end of a run leaves work to the full collections. An idle
 * fleet has no such objects, and its replica keeps the memory.
 *
 *   calm ──500 ends in a second──▶ busy ──a minute without──▶ calm
 *
 * V8 reads the factor of growth at each growth, and shrinks a young generation by itself.
 */
const calmBytes = 8 * 1024 * 1024;
/** Ends of runs and turns in a second. */
const busyEnds = 500;
const busyLooks = 60;
const lookMs = 1_000;

export class YoungGeneration {
  #ends = 0;
  #looksLeft = 0;
  #mayGrow = true;

  /** Looks every `everyMs` milliseconds, for as long as the process lives. */
  constructor(everyMs = lookMs) {
    this.#look();
    setInterval(() => this.#look(), everyMs).unref();
  }

  /** Notes runs or turns that have ended. */
  noteEnds(count: number): void {
    this.#ends += count;
  }

  #look(): void {
    this.#looksLeft = this.#ends >= busyEnds ? busyLooks : Math.max(0, this.#looksLeft - 1);
    this.#ends = 0;
    const mayGrow = this.#looksLeft > 0 || halfBytes() < calmBytes;
    if (mayGrow === this.#mayGrow) return;
    this.#mayGrow = mayGrow;
    setFlagsFromString(`--semi-space-growth-factor=${mayGrow ? 2 : 1}`);
  }
}

/** The size of a half of the young generation. */
function halfBytes(): number {
  const young = getHeapSpaceStatistics().find(({ space_name: name }) => name === "new_space");
  return (young?.space_size ?? 0) / 2;
}
