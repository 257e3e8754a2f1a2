import { createHash, randomBytes } from "node:crypto";
import type { ReadableSpan } from "@opentelemetry/sdk-trace";
import { outgoingAgent } from "../network/outgoing.ts";
import type { Logger } from "./log.ts";

/**
 * OpenTelemetry traces, exported as OTLP over HTTP. The libraries are loaded only if an endpoint is
 * configured.
 *
 * The trace of a run needs no column and no context in messages: the trace id is the run's id, the
 * id of the root span is made from the trace id, and the random bits of the trace id decide about
 * sampling. So all replicas and the device agree, and each span is recorded once, by the process
 * that sees the span's end.
 */
export type Tracer = {
  record(span: Span): void;
  /** Whether the trace belongs to the configured share of traces that are kept. */
  isSampled(traceId: string): boolean;
  /** Sends the waiting spans, for at most `closeWithinMs`. */
  close(): Promise<void>;
};

export type Span = {
  name: string;
  traceId: string;
  /** Absent: a random id. */
  spanId?: string;
  parentSpanId?: string | undefined;
  kind?: "internal" | "server";
  /** Milliseconds since 1970. */
  startMs: number;
  endMs: number;
  attributes: Record<string, string | number | boolean | undefined>;
  /** The reason of a failure; absent or empty: no failure. */
  error?: string | undefined;
};

/** The receiver of the spans, and the share of traces that are kept. */
export type TracingConfig = {
  /** The full URL that takes OTLP over HTTP, for example http://collector:4318/v1/traces. */
  url: string;
  /** The share of traces that are kept, 0 to 1. */
  ratio: number;
};

/** Maximum spans that wait to be sent; further spans are dropped. */
const spansWaitingMax = 8_192;
const spansPerRequestMax = 512;
const sendEveryMs = 1_000;
const sendWithinMs = 10_000;
const closeWithinMs = 2_000;
/** Minimum milliseconds between two warnings about a collector that takes no spans. */
const warnEveryMs = 60_000;

/** The trace id of a run: the run's UUID, which has the length and the randomness of a trace id. */
export function traceIdOf(runId: string): string {
  return runId.replaceAll("-", "").toLowerCase();
}

/**
 * A span's id, made from the trace id and the span's name, so that all processes make the same id.
 */
export function spanIdOf(traceId: string, name: string): string {
  return createHash("sha256").update(`${traceId} ${name}`).digest("hex").slice(0, 16);
}

export function newTraceId(): string {
  return randomBytes(16).toString("hex");
}

/** A W3C trace context. */
export function formatTraceparent(context: TraceContext): string {
  return `00-${context.traceId}-${context.spanId}-${context.isSampled ? "01" : "00"}`;
}

export type TraceContext = { traceId: string; spanId: string; isSampled: boolean };

/** The context in a `traceparent`; undefined without a header, and for a malformed header. */
export function parseTraceparent(text: string | null | undefined): TraceContext | undefined {
  const match = /^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/.exec(text ?? "");
  if (!match) return undefined;
  const [, traceId, spanId, flags] = match as unknown as [string, string, string, string];
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/**
 * Whether a trace is kept at the ratio: compares the last 52 bits of the trace id, which are random
 * in a UUIDv7 and in every other trace id.
 */
export function isWithinRatio(traceId: string, ratio: number): boolean {
  return Number.parseInt(traceId.slice(-13), 16) / 2 ** 52 < ratio;
}

/**
 * Loads OpenTelemetry and begins to export. While the collector is away, spans are lost, with a
 * warning once in `warnEveryMs`.
 */
export async function openTracer(
  config: TracingConfig,
  options: { service: string; version: string; instanceId: string; log: Logger },
): Promise<Tracer> {
  const [{ BatchSpanProcessor }, { OTLPTraceExporter }, { resourceFromAttributes }, api] = await Promise.all([
    import("@opentelemetry/sdk-trace"),
    import("@opentelemetry/exporter-trace-otlp-proto"),
    import("@opentelemetry/resources"),
    import("@opentelemetry/api"),
  ]);
  const exporter = new OTLPTraceExporter({
    url: config.url,
    timeoutMillis: sendWithinMs,
    httpAgentOptions: () => outgoingAgent(config.url),
  });
  const warn = warner(options.log);
  const processor = new BatchSpanProcessor({
    exporter: {
      export(spans, done) {
        exporter.export(spans, (result) => {
          if (result.error) warn(spans.length, result.error.message);
          done(result);
        });
      },
      forceFlush: () => exporter.forceFlush(),
      shutdown: () => exporter.shutdown(),
    },
    maxQueueSize: spansWaitingMax,
    maxExportBatchSize: spansPerRequestMax,
    scheduledDelayMillis: sendEveryMs,
    exportTimeoutMillis: sendWithinMs,
  });
  const common = {
    resource: resourceFromAttributes({
      "service.name": options.service,
      "service.version": options.version,
      "service.instance.id": options.instanceId,
    }),
    instrumentationScope: { name: "pinion", version: options.version },
  };
  const readable = readableIn(api, common);
  let closing: Promise<void> | undefined;
  return {
    record: (span) => processor.onEnd(readable(span)),
    isSampled: (traceId) => isWithinRatio(traceId, config.ratio),
    close() {
      closing ??= Promise.race([
        processor.shutdown().catch(() => {}),
        new Promise<void>((resolve) => setTimeout(resolve, closeWithinMs).unref()),
      ]);
      return closing;
    },
  };
}

/** Warns of spans that the collector did not take, once in `warnEveryMs`. */
function warner(log: Logger): (spans: number, why: string) => void {
  let warnedAt = Number.NEGATIVE_INFINITY;
  return (spans, why) => {
    if (performance.now() - warnedAt <= warnEveryMs) return;
    warnedAt = performance.now();
    log.warn({ spans, why }, "traces were not taken");
  };
}

/** Converts spans of Pinion into spans of OpenTelemetry. */
function readableIn(
  api: typeof import("@opentelemetry/api"),
  common: Pick<ReadableSpan, "resource" | "instrumentationScope">,
): (span: Span) => ReadableSpan {
  const contextOf = (traceId: string, spanId: string) => ({
    traceId,
    spanId,
    traceFlags: api.TraceFlags.SAMPLED,
  });
  return (span) => {
    // The times may come from clocks of two machines: an end before the beginning counts as no
    // time.
    const endMs = Math.max(span.startMs, span.endMs);
    const spanContext = contextOf(span.traceId, span.spanId ?? randomBytes(8).toString("hex"));
    return {
      name: span.name,
      kind: span.kind === "server" ? api.SpanKind.SERVER : api.SpanKind.INTERNAL,
      spanContext: () => spanContext,
      ...(span.parentSpanId ? { parentSpanContext: contextOf(span.traceId, span.parentSpanId) } : {}),
      startTime: hrTime(span.startMs),
      endTime: hrTime(endMs),
      duration: hrTime(endMs - span.startMs),
      ended: true,
      status: span.error
        ? { code: api.SpanStatusCode.ERROR, message: span.error }
        : { code: api.SpanStatusCode.UNSET },
      attributes: Object.fromEntries(
        Object.entries(span.attributes).filter(([, value]) => value !== undefined && value !== ""),
      ) as ReadableSpan["attributes"],
      links: [],
      events: [],
      ...common,
      droppedAttributesCount: 0,
      droppedEventsCount: 0,
      droppedLinksCount: 0,
    };
  };
}

function hrTime(ms: number): [seconds: number, nanoseconds: number] {
  const seconds = Math.floor(ms / 1000);
  return [seconds, Math.round((ms - seconds * 1000) * 1e6)];
}
