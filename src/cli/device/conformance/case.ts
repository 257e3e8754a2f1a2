import type { Stage } from "./stage.ts";

/** One promise of the protocol, and the scene that shows whether a daemon keeps it. */
export type ConformanceCase = {
  name: string;
  /** What the daemon does, in a sentence; docs/protocol.md has the rule. */
  promise: string;
  /** Throws `Wrong` or `Skipped`. Every message is checked besides. */
  play(stage: Stage): Promise<void>;
};
