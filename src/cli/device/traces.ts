import type { Assignment, DaemonEvent } from "@pinion/client";
import type { Logger } from "../../log.ts";
import {
  formatTraceparent,
  openTracer,
  parseTraceparent,
  spanIdOf,
  type TraceContext,
  type Tracer,
  type TracingConfig,
} from "../../tracing.ts";
import { version } from "../../version.ts";

/**
 * The daemon's part of a run's trace, made from what the daemon tells anyway: `accept on device`, `execute` and
 * `deliver`, below the run's span that the assignment names. The client library itself knows of no OpenTelemetry.
 */
export type DeviceTraces = {
  note(event: DaemonEvent): void;
  /** What a program gets as TRACEPARENT: its spans stand below `execute`. */
  traceparentOf(assignment: Assignment): string;
  close(): Promise<void>;
};

/** Attempts that are remembered: far more than a device runs at once, and their results wait only while offline. */
const attemptsMax = 4_096;

type Traced = {
  context: TraceContext;
  runId: string;
  attempt: number;
  executor: string;
  /** When the step that is under way began. */
  sinceMs: number;
};

export async function openDeviceTraces(
  config: TracingConfig,
  options: { deviceId: string; log: Logger },
): Promise<DeviceTraces> {
  const tracer = await openTracer(config, {
    service: "pinion-device",
    version: version(),
    instanceId: options.deviceId,
    log: options.log,
  });
  return createDeviceTraces(tracer, options.deviceId);
}

export function createDeviceTraces(tracer: Tracer, deviceId: string): DeviceTraces {
  const attempts = new Map<string, Traced>();

  function end(traced: Traced, name: string, endMs: number, more: { spanId?: string; error?: string } = {}) {
    const { context, runId, attempt, executor } = traced;
    tracer.record({
      name,
      traceId: context.traceId,
      parentSpanId: context.spanId,
      startMs: traced.sinceMs,
      endMs,
      attributes: {
        "pinion.run_id": runId,
        "pinion.device_id": deviceId,
        "pinion.attempt": attempt,
        "pinion.executor": executor,
      },
      ...more,
    });
    traced.sinceMs = endMs;
  }

  return {
    note(event) {
      if (event.type === "assignment") {
        const context = parseTraceparent(event.traceparent);
        if (!context?.isSampled) return;
        if (attempts.size >= attemptsMax) attempts.delete(attempts.keys().next().value!);
        const { runId, attempt, attemptToken } = event;
        attempts.set(attemptToken, { context, runId, attempt, executor: "", sinceMs: event.atMs });
        return;
      }
      if (!("attemptToken" in event)) return;
      const traced = attempts.get(event.attemptToken);
      if (!traced) return;
      switch (event.type) {
        case "accepted":
          end(traced, "accept on device", event.atMs);
          break;
        case "started":
          traced.executor = event.executor;
          break;
        case "finished": {
          const { outcome, reason } = event.result;
          end(traced, "execute", event.atMs, {
            spanId: executeSpanId(traced.context.traceId, traced.attempt),
            ...(outcome === "completed" ? {} : { error: reason ?? outcome }),
          });
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
    },
    traceparentOf({ traceparent, attempt }) {
      const context = parseTraceparent(traceparent);
      if (!context?.isSampled) return traceparent;
      return formatTraceparent({ ...context, spanId: executeSpanId(context.traceId, attempt) });
    },
    close: () => tracer.close(),
  };
}

/** Known before the program starts, because it is told. */
function executeSpanId(traceId: string, attempt: number): string {
  return spanIdOf(traceId, `execute ${attempt}`);
}
