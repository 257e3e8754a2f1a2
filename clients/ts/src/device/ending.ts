import type { DeviceError } from "./errors.ts";

/** The end of a connection: resolved after `close`, rejected after a final error. */
export class Ending {
  readonly promise: Promise<void>;
  resolve: () => void = () => {};
  reject: (error: DeviceError) => void = () => {};

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // A caller may handle only the `fatal` event; an unhandled rejection of the promise must not
    // end the process.
    this.promise.catch(() => {});
  }
}
