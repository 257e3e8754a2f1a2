/**
 * The life of an attempt that is out at a device, as its session remembers it. The database decides; a session's memory
 * keeps the device within its slots and notices what the device has lost.
 *
 *   assigned ──accept──▶ accepting ──stored──▶ running
 *      │                     │                    │
 *      └──────────── report / take ───────────────┘
 *                            ▼
 *              reporting          settling
 *
 *   assigned   pushed, not answered; the accept deadline runs
 *   accepting  answered; the database does not know it yet
 *   running    both know
 *   reporting  the device has said how it ended
 *   settling   taken away from the device; the database does not know it yet
 *
 * The attempt leaves the session's memory when its end is in the database, from any state.
 */
export type AttemptState = "assigned" | "accepting" | "running" | "reporting" | "settling";

export type AttemptEvent =
  /** The device takes it on. */
  | "accept"
  /** The accept is in the database. */
  | "stored"
  /** The device says that it ended, or turns it down. */
  | "report"
  /** The session takes it away. */
  | "take";

/** The state that follows; null: the event counts for nothing in this state. */
export const attemptTransitions: Record<AttemptState, Record<AttemptEvent, AttemptState | null>> = {
  assigned: { accept: "accepting", stored: null, report: "reporting", take: "settling" },
  accepting: { accept: null, stored: "running", report: "reporting", take: "settling" },
  running: { accept: null, stored: null, report: "reporting", take: "settling" },
  reporting: { accept: null, stored: null, report: "reporting", take: "settling" },
  // A completion on its way when the attempt was taken: its verdict says what became of it.
  settling: { accept: null, stored: null, report: "reporting", take: "settling" },
};
