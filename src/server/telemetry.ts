import type { ReportVerdict } from "../scheduler/endings/endings.ts";
import type { Reaped } from "../scheduler/endings/reaper.ts";
import type { Settled } from "../store/work/attempts/settlements.ts";
import type { ClaimedRun } from "../store/work/runs/run-claims.ts";
import type { RecordedRun } from "../store/work/watchers/slot-rows.ts";
import type { BatchKind, Metrics } from "../telemetry/metrics.ts";
import { formatTraceparent, spanIdOf, type Tracer, traceIdOf } from "../telemetry/tracing.ts";

/**
 * Receives the changes of runs and turns them into numbers and spans. Never waits, never fails, and
 * keeps no state: a run's trace is assembled by its id.
 */
export type Telemetry = {
  batch(kind: BatchKind): (size: number, ms: number) => void;
  /** Slots were recorded; after the commit. */
  recorded(runs: readonly RecordedRun[]): void;
  /** Attempts were settled; after the commit. */
  settled(settled: readonly Settled[]): void;
  reaped(reaped: readonly Pick<Reaped, "rule">[]): void;
  /** A session took an attempt away because its device does not list or answer for it. */
  lost(rule: "not_listed" | "not_answered"): void;
  streamEnded(cause: string): void;
  /** The trace context of a run for its device; empty while traces are off. */
  traceparent(runId: string): string;
  /** An assignment was queued on its stream. */
  pushed(run: PushedRun, took: { claimMs: number; waitedMs: number }): void;
  /** An accept is in the database. */
  accepted(attempt: Attempt, tookMs: number): void;
  /** A completion was answered. */
  acknowledged(attempt: Attempt, verdict: ReportVerdict["verdict"], tookMs: number): void;
};

type Attempt = { orgId: string; deviceId: string; workId: string };
type PushedRun = Pick<ClaimedRun, "orgId" | "runId" | "watcherId" | "deviceId" | "attempt">;

export function createTelemetry(options: { metrics: Metrics; tracer: Tracer | undefined }): Telemetry {
  const { metrics } = options;
  const steps = createSteps(options.tracer);

  return {
    batch: (kind) => metrics.batch(kind),
    recorded(runs) {
      for (const run of runs) {
        metrics.recorded(run.status, run.skipReason);
        if (run.status !== "pending" || !options.tracer) continue;
        steps.step(run.runId, "materialize", Math.max(0, Date.now() - run.dueAt.getTime()), namesOf(run));
      }
    },
    settled(settled) {
      for (const run of settled) {
        metrics.settled(run.action === "finished" ? run.status : run.action);
        metrics.attention(run.attention ?? []);
        if (run.action !== "finished") continue;
        steps.whole(run);
      }
    },
    reaped(reaped) {
      for (const { rule } of reaped) metrics.reaped(rule);
    },
    lost: (rule) => metrics.reaped(rule),
    streamEnded: (cause) => metrics.streamEnded(cause),
    traceparent(runId) {
      if (!options.tracer) return "";
      const traceId = traceIdOf(runId);
      const spanId = spanIdOf(traceId, rootName);
      return formatTraceparent({ traceId, spanId, isSampled: options.tracer.isSampled(traceId) });
    },
    pushed(run, { claimMs, waitedMs }) {
      metrics.pushed(waitedMs);
      if (options.tracer)
        steps.step(run.runId, "claim and push", claimMs, { ...namesOf(run), "pinion.attempt": run.attempt });
    },
    accepted(attempt, tookMs) {
      if (options.tracer)
        steps.step(attempt.workId, "accept", tookMs, namesOf({ ...attempt, runId: attempt.workId }));
    },
    acknowledged(attempt, verdict, tookMs) {
      metrics.acknowledged(tookMs);
      if (options.tracer)
        steps.step(attempt.workId, "complete and store", tookMs, {
          ...namesOf({ ...attempt, runId: attempt.workId }),
          "pinion.verdict": verdict,
        });
    },
  };
}

type Ended = Parameters<Telemetry["settled"]>[0][number];

/** Spans of runs; nothing without a tracer, and nothing of a run that is not sampled. */
function createSteps(tracer: Tracer | undefined) {
  const tracerOf = (traceId: string) => (tracer?.isSampled(traceId) ? tracer : undefined);
  return {
    /** Records a span of a run that ends now. */
    step(runId: string, name: string, tookMs: number, attributes: Attributes): void {
      const traceId = traceIdOf(runId);
      const endMs = Date.now();
      const parentSpanId = spanIdOf(traceId, rootName);
      tracerOf(traceId)?.record({ name, traceId, parentSpanId, startMs: endMs - tookMs, endMs, attributes });
    },
    /** Records the root span of an ended run. */
    whole(run: Ended): void {
      const traceId = traceIdOf(run.runId);
      tracerOf(traceId)?.record({
        name: rootName,
        traceId,
        spanId: spanIdOf(traceId, rootName),
        startMs: run.dueAt.getTime(),
        endMs: Date.now(),
        attributes: {
          ...namesOf(run),
          "pinion.run.status": run.status,
          "pinion.attempt": run.attempt,
          "pinion.window_id": run.windowId ?? undefined,
        },
        error: run.status === "failed" || run.status === "timeout" ? run.reason || run.status : undefined,
      });
    },
  };
}

/** The root span: from a run's due time until it was stored. */
const rootName = "run";

type Attributes = Record<string, string | number | boolean | undefined>;

function namesOf(run: {
  orgId: string;
  runId: string;
  watcherId?: string;
  deviceId: string | null;
}): Attributes {
  return {
    "pinion.org_id": run.orgId,
    "pinion.run_id": run.runId,
    "pinion.watcher_id": run.watcherId,
    "pinion.device_id": run.deviceId ?? undefined,
  };
}
