import type { Timing } from "../../../clients/ts/src/index.ts";

/** Waits of a second or more are cut down; everything else is as in earnest. */
export const quickTiming: Partial<Timing> = {
  dialDeadlineMs: 1_000,
  welcomeDeadlineMs: 1_000,
  drainLingerMs: 300,
  backoffBaseMs: 20,
  backoffCapMs: 100,
  ackDeadlineMs: 300,
};
