import type { ConnectRequest } from "../gen/pinion/v1/device_pb.js";

/** Maximum bytes of output waiting for the stream; output beyond the bound is dropped. */
export const OUTPUT_QUEUE_BYTES_MAX = 256 * 1024;
/**
 * Maximum count of control messages waiting for the stream. Only a peer that does not read reaches
 * the bound; the stream is then cut.
 */
export const CONTROL_QUEUE_MAX = 4096;
/**
 * Bound on output in bytes per second and stream, with bursts of the same size. The client drops
 * the excess, so the server need not.
 */
const OUTPUT_BYTES_PER_SECOND_MAX = 2 * 1024 * 1024;

/**
 * Send queue of a stream, in two lanes; the control lane goes first. One message is with the
 * transport at a time, and the next is chosen when the transport has taken the message, so a
 * heartbeat overtakes all waiting output.
 *
 * `write` hands a message to the transport and calls back when the transport has room for more.
 */
export class Outbound {
  readonly #write: (message: ConnectRequest, taken: () => void) => void;
  readonly #onOverflow: () => void;
  readonly #control: ConnectRequest[] = [];
  readonly #output: { message: ConnectRequest; bytes: number }[] = [];
  #outputBytes = 0;
  #isWriting = false;
  #isOpen = false;
  #allowanceBytes = OUTPUT_BYTES_PER_SECOND_MAX;
  #allowanceAt = performance.now();

  constructor(write: (message: ConnectRequest, taken: () => void) => void, onOverflow: () => void) {
    this.#write = write;
    this.#onOverflow = onOverflow;
  }

  /** Starts to write the queued messages. */
  open(): void {
    this.#isOpen = true;
    this.#pump();
  }

  /** Drops the queued messages; nothing is written from now on. */
  close(): void {
    this.#isOpen = false;
    this.#control.length = 0;
    this.#output.length = 0;
    this.#outputBytes = 0;
  }

  control(message: ConnectRequest): void {
    if (message.message.case === "heartbeat") {
      // A new heartbeat replaces an unsent heartbeat: only the newest state matters.
      const waiting = this.#control.findIndex((queued) => queued.message.case === "heartbeat");
      if (waiting >= 0) this.#control.splice(waiting, 1);
      this.#control.unshift(message);
    } else {
      this.#control.push(message);
    }
    if (this.#control.length > CONTROL_QUEUE_MAX) {
      this.#onOverflow();
      return;
    }
    this.#pump();
  }

  /** False if the piece was dropped. */
  output(message: ConnectRequest, bytes: number): boolean {
    if (!this.#isOpen || this.#outputBytes + bytes > OUTPUT_QUEUE_BYTES_MAX || !this.#allow(bytes))
      return false;
    this.#output.push({ message, bytes });
    this.#outputBytes += bytes;
    this.#pump();
    return true;
  }

  #allow(bytes: number): boolean {
    const now = performance.now();
    const earned = ((now - this.#allowanceAt) / 1000) * OUTPUT_BYTES_PER_SECOND_MAX;
    this.#allowanceBytes = Math.min(OUTPUT_BYTES_PER_SECOND_MAX, this.#allowanceBytes + earned);
    this.#allowanceAt = now;
    if (this.#allowanceBytes < bytes) return false;
    this.#allowanceBytes -= bytes;
    return true;
  }

  #pump(): void {
    while (this.#isOpen && !this.#isWriting) {
      const message = this.#control.shift() ?? this.#nextOutput();
      if (message === undefined) return;
      this.#isWriting = true;
      let isTaken = false;
      let isReturned = false;
      this.#write(message, () => {
        isTaken = true;
        this.#isWriting = false;
        if (isReturned) this.#pump();
      });
      // A transport with room calls back before `write` returns: the loop goes on and the stack
      // does not grow.
      isReturned = true;
      if (!isTaken) return;
    }
  }

  #nextOutput(): ConnectRequest | undefined {
    const next = this.#output.shift();
    if (next !== undefined) this.#outputBytes -= next.bytes;
    return next?.message;
  }
}
