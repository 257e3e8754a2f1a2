import type { Assignment, DaemonEvent } from "@pinion/client";
import { build } from "../../build.ts";
import type { Logger } from "../../telemetry/log.ts";
import {
  formatTraceparent,
  openTracer,
  parseTraceparent,
  spanIdOf,
  type TraceContext,
  type Tracer,
  type TracingConfig,
} from "../../telemetry/tracing.ts";

/**
 * The daemon's part of a run's trace, made from the daemon's events: `accept on device`, `execute`
 * and `deliver`, below the run's span in the assignment. The client library does not use
 * OpenTelemetry.
 */
export type DeviceTraces = {
  note(event: DaemonEvent): void;
  /** TRACEPARENT of a program: its spans are children of `execute`. */
  traceparentOf(assignment: Assignment): string;
  close(): Promise<void>;
};

/**
 * Maximum of remembered attempts: far above the number running at once; results wait only while
 * offline.
 */
const attemptsMax = 4_096;

type Traced = {
  context: TraceContext;
  workId: string;
  attempt: number;
  executor: string;
  /** Start of the current step, in ms. */
  sinceMs: number;
};

export async function openDeviceTraces(
  config: TracingConfig,
  options: { deviceId: string; log: Logger },
): Promise<DeviceTraces> {
  const tracer = await openTracer(config, {
    service: "pinion-device",
    version: build.version,
    instanceId: options.deviceId,
    log: options.log,
  });
  return createDeviceTraces(tracer, options.deviceId);
}

function createDeviceTraces(tracer: Tracer, deviceId: string): DeviceTraces {
  const attempts = new Map<string, Traced>();

  function begin(event: Extract<DaemonEvent, { type: "assignment" }>): void {
    const context = parseTraceparent(event.traceparent);
    if (!context?.isSampled) return;
    const [oldest] = attempts.keys();
    if (attempts.size >= attemptsMax && oldest !== undefined) attempts.delete(oldest);
    const { workId, attempt, attemptToken } = event;
    attempts.set(attemptToken, { context, workId, attempt, executor: "", sinceMs: event.atMs });
  }

  const end = (traced: Traced, name: string, endMs: number, more?: { spanId?: string; error?: string }) => {
    tracer.record(spanOf(traced, { name, endMs, deviceId, ...more }));
    traced.sinceMs = endMs;
  };

  function goOn(traced: Traced, event: AttemptEvent): void {
    switch (event.type) {
      case "accepted":
        end(traced, "accept on device", event.atMs);
        break;
      case "started":
        traced.executor = event.executor;
        break;
      case "finished": {
        const { outcome, reason = outcome } = event.result;
        const spanId = executeSpanId(traced.context.traceId, traced.attempt);
        const error = outcome === "completed" ? {} : { error: reason };
        end(traced, "execute", event.atMs, { spanId, ...error });
        break;
      }
      case "acknowledged":
        end(traced, "deliver", event.atMs);
        attempts.delete(event.attemptToken);
        break;
      case "rejected":
      case "cancelled":
      case "aborted":
        end(traced, event.type, event.atMs, { error: event.type });
        attempts.delete(event.attemptToken);
        break;
    }
  }

  return {
    note(event) {
      if (event.type === "assignment") return begin(event);
      if (!("attemptToken" in event)) return;
      const traced = attempts.get(event.attemptToken);
      if (traced) goOn(traced, event);
    },
    traceparentOf({ traceparent, attempt }) {
      const context = parseTraceparent(traceparent);
      if (!context?.isSampled) return traceparent;
      return formatTraceparent({ ...context, spanId: executeSpanId(context.traceId, attempt) });
    },
    close: () => tracer.close(),
  };
}

/** The span from the last moment of the attempt to `endMs`. */
function spanOf(
  { context, workId, attempt, executor, sinceMs }: Traced,
  { deviceId, ...step }: { name: string; endMs: number; deviceId: string; spanId?: string; error?: string },
) {
  return {
    ...step,
    traceId: context.traceId,
    parentSpanId: context.spanId,
    startMs: sinceMs,
    attributes: {
      "pinion.run_id": workId,
      "pinion.device_id": deviceId,
      "pinion.attempt": attempt,
      "pinion.executor": executor,
    },
  };
}

type AttemptEvent = Extract<DaemonEvent, { attemptToken: string }>;

/** Derived, because the program receives the id before its start. */
function executeSpanId(traceId: string, attempt: number): string {
  return spanIdOf(traceId, `execute ${attempt}`);
}
