/**
 * What comes in by hooks and goes out to destinations: its history and its rows, for the rig and
 * the checker.
 */

/** An answer to a sender, or a message at the receiver. */
export type TrafficHappening =
  /** The sender's first post of a delivery. */
  | { kind: "posting"; hook: string; key: string }
  /** An answer of 202: the delivery was taken in. */
  | { kind: "posted"; hook: string; key: string; run: string | null }
  /** A message of Pinion at the receiver, and the receiver's answer; 0: the connection was cut. */
  | { kind: "received"; delivery: string; run: string; watcher: string; status: number };

export type StartRow = {
  run: string;
  watcher: string;
  hookDelivery: string | null;
  after: string | null;
  isRetry: boolean;
};
export type HookDeliveryRow = {
  id: string;
  hook: string;
  key: string | null;
  outcome: string;
  run: string | null;
};
export type DeliveryRow = {
  id: string;
  watcher: string | null;
  run: string | null;
  kind: string;
  seq: number;
  state: "pending" | "delivered" | "dead";
};

export type TrafficRows = {
  starts: StartRow[];
  hookDeliveries: HookDeliveryRow[];
  deliveries: DeliveryRow[];
  /** Watchers, and the watcher whose ends start each. */
  followers: { watcher: string; after: string }[];
  /** Watchers that tell of each end. */
  told: string[];
};

/** Outcomes of a hook's delivery with a run, now or later. */
export const startingOutcomes: ReadonlySet<string> = new Set([
  "started",
  "already_queued",
  "queued",
  "skipped",
]);
