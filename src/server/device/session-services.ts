import type { Hello } from "#gen/pinion/v1/device_pb.js";
import type { DatabaseClock } from "../../database-clock.ts";
import type { Logger } from "../../log.ts";
import type { Report, ReportVerdict } from "../../scheduler/completer.ts";
import type { QuestionRow } from "../../scheduler/questions.ts";
import type { Incarnation } from "../../store/pg/incarnation.ts";
import type { SessionName } from "../../store/work/presence.ts";
import type { Asked } from "../../store/work/questions.ts";
import type { ForgottenAttempt } from "../../store/work/restorations.ts";
import type { AttemptName } from "../../store/work/settlements.ts";
import type { OutputChunk } from "../cluster/feed.ts";
import type { Telemetry } from "../telemetry.ts";
import type { DueWheel } from "./due-wheel.ts";
import type { OutstandingAttempt } from "./outstanding.ts";
import type { Opening } from "./reconcile.ts";
import type { AttemptKind, Work } from "./work.ts";

/** What a session (`Self`) needs of its replica. */
export type SessionServices<Self> = {
  replicaId: string;
  timers: {
    heartbeatIntervalMs: number;
    ttlMs: number;
    helloDeadlineMs: number;
    acceptDeadlineMs: number;
    ageMsMax: number;
    messageBytesMax: number;
  };
  log: Logger;
  /** The database's clock, and its moments. */
  clock: Pick<DatabaseClock, "now">;
  wheel: Pick<DueWheel, "at">;
  telemetry: Pick<Telemetry, "traceparent" | "pushed" | "accepted" | "acknowledged" | "lost">;
  /** Reconciles a hello; on return the session is the device's. */
  open(session: Self, hello: Hello): Promise<Opening>;
  /** The session serves; it may have work. */
  opened(session: Self, opening: Opening): void;
  /** The database that is stored into, as far as it is known. */
  incarnation(): Incarnation | undefined;
  /** Makes an attempt known again that the database may have forgotten. */
  restore(forgotten: ForgottenAttempt): Promise<void>;
  /** Without a kind, of an attempt that the session has not heard of. */
  report(report: Report, kind: AttemptKind | undefined): Promise<ReportVerdict>;
  /** What becomes of its attempts. */
  works: Record<AttemptKind, Pick<Work, "accept" | "settle">>;
  beat(session: SessionName, attempts: readonly (AttemptName & { kind: AttemptKind })[]): void;
  output(chunk: OutputChunk): void;
  /** Undefined: the attempt may not ask. */
  ask(asked: Asked): Promise<QuestionRow | undefined>;
  closeQuestion(which: AttemptName & { id: string }, state: "expired" | "withdrawn"): Promise<void>;
  /** A run or a turn is somewhere else in its life; those who watch it look. */
  runMoved(
    session: SessionName,
    kind: "run.claimed" | "run.started",
    attempt: Pick<OutstandingAttempt, "kind" | "runId" | "watcherId" | "attempt">,
  ): void;
  wake(session: Self): void;
  /**
   * `isBroken`: nobody had asked the stream to end, so its turns are lost; but for those whose claim was still under way,
   * which are in nobody's hands: what was out at the device is `pushed`, by attempt token.
   */
  closed(session: Self, end: { cause: string; isBroken: boolean; pushed: ReadonlySet<string> }): void;
};
