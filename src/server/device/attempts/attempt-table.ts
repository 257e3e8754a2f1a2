/**
 * The states of an attempt on a device, as remembered by its session. The database decides; the
 * session's memory keeps the device within its slots and detects attempts that the device has lost.
 *
 *   assigned ──accept──▶ accepting ──stored──▶ running
 *      │                     │                    │
 *      └──────────── report / take ───────────────┘
 *                            ▼
 *              reporting          settling
 *
 *   assigned   pushed, not answered; the accept deadline runs
 *   accepting  accepted by the device; the accept is not yet in the database
 *   running    accepted, and the accept is in the database
 *   reporting  the device has reported the end
 *   settling   taken away from the device; the settlement is not yet in the database
 *
 * The session forgets the attempt when its end is in the database, from any state.
 */
export type AttemptState = "assigned" | "accepting" | "running" | "reporting" | "settling";

export type AttemptEvent =
  /** The device accepts the attempt. */
  | "accept"
  /** The accept is in the database. */
  | "stored"
  /** The device reports the end, or rejects the attempt. */
  | "report"
  /** The session takes the attempt away. */
  | "take";

/** The next state; null: the event is ignored in the state. */
export const attemptTransitions: Record<AttemptState, Record<AttemptEvent, AttemptState | null>> = {
  assigned: { accept: "accepting", stored: null, report: "reporting", take: "settling" },
  accepting: { accept: null, stored: "running", report: "reporting", take: "settling" },
  running: { accept: null, stored: null, report: "reporting", take: "settling" },
  reporting: { accept: null, stored: null, report: "reporting", take: "settling" },
  // A completion was on its way when the attempt was taken: the completion's verdict tells the
  // outcome.
  settling: { accept: null, stored: null, report: "reporting", take: "settling" },
};
