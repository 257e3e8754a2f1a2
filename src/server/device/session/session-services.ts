import type { Hello } from "#gen/pinion/v1/device_pb.js";
import type { SessionTimers } from "../../../config/sessions.ts";
import type { Dispatcher } from "../../../scheduler/dispatcher.ts";
import type { Reports } from "../../../scheduler/endings/endings.ts";
import type { QuestionRow } from "../../../scheduler/questions.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import type { AttemptName } from "../../../store/work/attempts/settlements.ts";
import type { ForgottenAttempt } from "../../../store/work/runs/restorations.ts";
import type { SessionName } from "../../../store/work/service/presence.ts";
import type { Asked } from "../../../store/work/turns/questions.ts";
import type { ForgottenTurn } from "../../../store/work/turns/turn-restorations.ts";
import type { Logger } from "../../../telemetry/log.ts";
import type { DatabaseClock } from "../../../time/database-clock.ts";
import type { TimerWheel } from "../../../time/timer-wheel.ts";
import type { OutputChunk } from "../../cluster/output.ts";
import type { Telemetry } from "../../telemetry.ts";
import type { DueWheel } from "../attempts/due-wheel.ts";
import type { OutstandingAttempt } from "../attempts/outstanding.ts";
import type { AttemptKind, Work } from "../attempts/work.ts";
import type { LogExcerptOf } from "../hub/device-logs.ts";
import type { Opening } from "../reconcile/reconcile.ts";

/** The services of the replica for a session (`Self`). */
export type SessionServices<Self> = {
  replicaId: string;
  /** The name in agents' tokens; "" for none. */
  cell: string;
  timers: SessionTimers;
  /** A timer of the replica's wheel: up to half a second late. */
  after: TimerWheel["after"];
  log: Logger;
  /** The database's clock, and callbacks at its times. */
  clock: Pick<DatabaseClock, "now">;
  wheel: Pick<DueWheel, "at">;
  telemetry: Pick<Telemetry, "traceparent" | "pushed" | "accepted" | "acknowledged" | "lost">;
  /** Reconciles a hello; on return the session is the device's. */
  open(session: Self, hello: Hello): Promise<Opening>;
  /** The session serves and may have work. */
  opened(session: Self, opening: Opening): void;
  /** The database behind `db`, as far as known. */
  incarnation(): Incarnation | undefined;
  /** The version of the daemon that this server gives; empty: none. */
  daemonVersion(): string;
  /**
   * Restores an attempt that the database may have forgotten; the id of its run, if it is known
   * now.
   */
  restore(forgotten: ForgottenAttempt): Promise<string | undefined>;
  restoreTurn(forgotten: ForgottenTurn): Promise<void>;
  report: Reports;
  /** Writes changes of the session's attempts. */
  works: Record<AttemptKind, Pick<Work, "accept" | "settle">>;
  beat(session: SessionName, attempts: readonly (AttemptName & { kind: AttemptKind })[]): void;
  output(chunk: OutputChunk): void;
  /** Undefined: the attempt may not ask. */
  ask(asked: Asked): Promise<QuestionRow | undefined>;
  closeQuestion(which: AttemptName & { id: string }, state: "expired" | "withdrawn"): Promise<void>;
  /** A run or a turn changed its state; its watchers are woken. */
  runMoved(
    session: SessionName,
    kind: "run.claimed" | "run.started",
    attempt: Pick<OutstandingAttempt, "kind" | "workId" | "watcherId" | "attempt">,
  ): void;
  dispatcher: Pick<Dispatcher, "wake">;
  /** The end of the device's log, for the replica that asked. */
  logArrived(excerpt: LogExcerptOf & { orgId: string; requestId: string; replyTo: string }): void;
  /**
   * `isBroken`: the end of the stream was not requested, so its turns are lost. Turns whose claim
   * was still under way are excepted, because they never reached the device: `pushed` has the
   * tokens of the attempts on the device.
   */
  closed(session: Self, end: { cause: string; isBroken: boolean; pushed: ReadonlySet<string> }): void;
};
