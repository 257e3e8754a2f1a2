import type { Stage } from "./stage.ts";

/** A promise of the protocol, and the test of a daemon. */
export type ConformanceCase = {
  name: string;
  /** The daemon's behaviour in a sentence; docs/protocol.md has the rule. */
  promise: string;
  /** Plays the case. Throws `Wrong` or `Skipped`. The server checks every message besides. */
  play(stage: Stage): Promise<void>;
};
